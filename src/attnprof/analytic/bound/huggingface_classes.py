"""Which classes of transformers (the library) compute alike: attention by its projections, experts and their routers.

A class is written ``model.Class``, or ``model.file.Class`` where its file is not ``modeling_model``. Each was run, and
its contractions were those of the formula in :mod:`attnprof.analytic.bound.huggingface`.
"""

from __future__ import annotations

from collections.abc import Iterator

#: The projections of queries, keys and values -> classes. A projection of all three (GPT-2's) is named three times.
PROJECTED: dict[tuple[str, str, str], str] = {
    ("q_proj", "k_proj", "v_proj"): """
        afmoe.AfmoeAttention aimv2.Aimv2Attention altclip.AltCLIPAttention apertus.ApertusAttention
        arcee.ArceeAttention aria.AriaTextAttention bamba.BambaAttention bart.BartAttention beam.BeamAttention
        beit.BeitAttention bigbird_pegasus.BigBirdPegasusDecoderAttention biogpt.BioGptAttention
        bitnet.BitNetAttention blenderbot.BlenderbotAttention blenderbot_small.BlenderbotSmallAttention
        canary.CanaryCrossAttention canary.CanarySelfAttention chinese_clip.ChineseCLIPVisionAttention
        clip.CLIPAttention clipseg.CLIPSegAttention cohere.CohereAttention cohere2.Cohere2Attention
        cohere2_moe.Cohere2MoeAttention cohere_asr.CohereAsrCrossAttention cohere_asr.CohereAsrSelfAttention
        cosmos3_edge.Cosmos3EdgeTextAttention cwm.CwmAttention
        data2vec.modeling_data2vec_audio.Data2VecAudioAttention deit.DeiTAttention dinov2.Dinov2Attention
        dinov2_with_registers.Dinov2WithRegistersAttention dinov3_vit.DINOv3ViTAttention doge.DogeAttention
        embedding_gemma2.EmbeddingGemma2Attention ernie4_5.Ernie4_5Attention ernie4_5_moe.Ernie4_5_MoeAttention
        eurobert.EuroBertAttention exaone4.Exaone4Attention exaone_moe.ExaoneMoeAttention
        falcon_h1.FalconH1Attention flex_olmo.FlexOlmoAttention flint.FlintAttention gemma.GemmaAttention
        gemma2.Gemma2Attention gemma3.Gemma3Attention gemma4.Gemma4TextAttention
        gemma4_unified.Gemma4UnifiedTextAttention git.GitVisionAttention glm.GlmAttention glm4.Glm4Attention
        glm4_moe.Glm4MoeAttention glm4v.Glm4vTextAttention glm_image.GlmImageTextAttention
        glm_ocr.GlmOcrTextAttention glmasr.GlmAsrAttention gpt_neo.GPTNeoSelfAttention gpt_oss.GptOssAttention
        gptj.GPTJAttention granite.GraniteAttention granite_docling.GraniteDoclingTextAttention
        granite_docling.GraniteDoclingVisionAttention granite_swa.GraniteSWAAttention
        granitemoe.GraniteMoeAttention granitemoe_swa.GraniteMoeSWAAttention
        granitemoeshared.GraniteMoeSharedAttention groupvit.GroupViTAttention gte.GteAttention
        helium.HeliumAttention higgs_audio_v2.HiggsAudioV2Attention hrm_text.HrmTextAttention
        hubert.HubertAttention hunyuan_v1_dense.HunYuanDenseV1Attention hunyuan_v1_moe.HunYuanMoEV1Attention
        hy_v3.HYV3Attention hyperclovax.HyperCLOVAXAttention idefics3.Idefics3VisionAttention
        ijepa.IJepaAttention inkling2.Inkling2SlidingAttention internvl.InternVLVisionAttention
        jais2.Jais2Attention jamba.JambaAttention jina_embeddings_v3.JinaEmbeddingsV3Attention
        kolibri1.Kolibri1Attention kosmos2_5.Kosmos2_5TextAttention laguna.LagunaAttention
        lasr.LasrEncoderAttention led.LEDDecoderAttention lfm2.Lfm2Attention lfm2_moe.Lfm2MoeAttention
        lfm3.Lfm3Attention llama.LlamaAttention llama4.Llama4TextAttention m2m_100.M2M100Attention
        marian.MarianAttention maskformer.MaskFormerDetrCrossAttention maskformer.MaskFormerDetrSelfAttention
        mbart.MBartAttention mellum.MellumAttention metaclip_2.MetaClip2Attention
        mimo_v2_flash.MiMoV2FlashAttention minimax.MiniMaxAttention minimax_m2.MiniMaxM2Attention
        ministral.MinistralAttention ministral3.Ministral3Attention mistral.MistralAttention
        mixtral.MixtralAttention mlcd.MLCDAttention mllama.MllamaTextSelfAttention
        modernbert_decoder.ModernBertDecoderAttention molmo2.Molmo2Attention
        moss_transcribe_diarize.MossTranscribeDiarizeAudioAttention muse_glimmer.MuseGlimmerTextAttention
        muse_spark.MuseSparkTextAttention mvp.MvpAttention nanochat.NanoChatAttention nemotron.NemotronAttention
        nemotron3_5_transcribe.Nemotron3_5TranscribeAttention
        nemotron3_diarization.Nemotron3DiarizationAttention nemotron_h.NemotronHAttention
        nllb_moe.NllbMoeAttention nomic_bert.NomicBertAttention olmo.OlmoAttention olmo2.Olmo2Attention
        olmo3.Olmo3Attention olmo_hybrid.OlmoHybridAttention olmoe.OlmoeAttention
        openai_privacy_filter.OpenAIPrivacyFilterAttention opt.OPTAttention owlv2.Owlv2Attention
        owlvit.OwlViTAttention paddleocr_vl.PaddleOCRAttention patchtst.PatchTSTAttention
        pegasus.PegasusAttention phi.PhiAttention phimoe.PhimoeAttention pixio.PixioAttention
        pixtral.PixtralAttention plbart.PLBartAttention qianfan_ocr.QianfanOCRVisionAttention
        qwen2.Qwen2Attention qwen2_5_omni.Qwen2_5OmniAttention qwen2_5_vl.Qwen2_5_VLAttention
        qwen2_audio.Qwen2AudioAttention qwen2_moe.Qwen2MoeAttention qwen2_vl.Qwen2VLAttention
        qwen3.Qwen3Attention qwen3_moe.Qwen3MoeAttention qwen3_omni_moe.Qwen3OmniMoeThinkerTextAttention
        qwen3_vl.Qwen3VLTextAttention qwen3_vl_moe.Qwen3VLMoeTextAttention radio.RadioAttention
        recurrent_gemma.RecurrentGemmaAttention sapiens2.Sapiens2Attention seamless_m4t.SeamlessM4TAttention
        seamless_m4t_v2.SeamlessM4Tv2Attention seed_oss.SeedOssAttention sew.SEWAttention siglip.SiglipAttention
        smollm3.SmolLM3Attention smolvlm.SmolVLMVisionAttention solar_open.SolarOpenAttention
        speech_to_text.Speech2TextAttention stablelm.StableLmAttention starcoder2.Starcoder2Attention
        step3p7.Step3p7Attention swin.SwinAttention t5gemma.T5GemmaCrossAttention t5gemma.T5GemmaSelfAttention
        t5gemma2.T5Gemma2SelfAttention tipsv2.Tipsv2TextAttention tipsv2.Tipsv2VisionAttention
        ultrabert.UltrabertAttention unispeech.UniSpeechAttention unispeech_sat.UniSpeechSatAttention
        unlimited_ocr.UnlimitedOcrTextAttention vaultgemma.VaultGemmaAttention videoprism.VideoPrismAttention
        vit.ViTAttention vit_mae.ViTMAEAttention vit_msn.ViTMSNAttention vivit.VivitAttention
        voxtral.VoxtralAttention voxtral_realtime.VoxtralRealtimeAttention wav2vec2.Wav2Vec2Attention
        whisper.WhisperAttention xglm.XGLMAttention
    """,
    ("query", "key", "value"): """
        albert.AlbertAttention altclip.AltRobertaSelfAttention bert.BertCrossAttention bert.BertSelfAttention
        bert_generation.BertGenerationSelfAttention blip.modeling_blip_text.BlipTextSelfAttention
        camembert.CamembertSelfAttention canine.CanineSelfAttention chinese_clip.ChineseCLIPTextSelfAttention
        data2vec.modeling_data2vec_text.Data2VecTextSelfAttention
        data2vec.modeling_data2vec_vision.Data2VecVisionSdpaSelfAttention
        donut.modeling_donut_swin.DonutSwinSelfAttention dpt.DPTSelfAttention electra.ElectraSelfAttention
        ernie.ErnieSelfAttention esm.EsmSelfAttention flava.FlavaSelfAttention git.GitSelfAttention
        ibert.IBertSelfAttention layoutlm.LayoutLMSelfAttention luke.LukeSelfAttention
        markuplm.MarkupLMSelfAttention maskformer.modeling_maskformer_swin.MaskFormerSwinSelfAttention
        megatron_bert.MegatronBertSelfAttention mobilebert.MobileBertSelfAttention
        mobilevit.MobileViTSelfAttention rembert.RemBertSelfAttention roberta.RobertaSelfAttention
        roberta_prelayernorm.RobertaPreLayerNormSelfAttention roc_bert.RoCBertSelfAttention
        roformer.RoFormerSelfAttention splinter.SplinterSelfAttention swin2sr.Swin2SRSelfAttention
        swinv2.Swinv2SelfAttention tapas.TapasSelfAttention videomae.VideoMAESelfAttention
        vilt.ViltSelfAttention visual_bert.VisualBertSelfAttention xlm_roberta.XLMRobertaSelfAttention
        xlm_roberta_xl.XLMRobertaXLSelfAttention xmod.XmodSelfAttention yolos.YolosSelfAttention
    """,
    ("q", "k", "v"): """
        longt5.LongT5Attention mpnet.MPNetSelfAttention mt5.MT5Attention
        switch_transformers.SwitchTransformersAttention t5.T5Attention udop.UdopAttention umt5.UMT5Attention
    """,
    ("q_lin", "k_lin", "v_lin"): """
        distilbert.DistilBertSelfAttention flaubert.MultiHeadAttention xlm.MultiHeadAttention
    """,
    ("c_attn", "c_attn", "c_attn"): """
        gpt2.GPT2Attention imagegpt.ImageGPTAttention openai.Attention
    """,
    ("query_proj", "key_proj", "value_proj"): """
        prophetnet.ProphetNetAttention
    """,
}
#: One projection of queries, keys and values, of any widths, and the one of what comes out -> classes.
TOGETHER: dict[tuple[str, str], str] = {
    ("query_key_value", "dense"): """
        bloom.BloomAttention falcon.FalconAttention gpt_neox.GPTNeoXAttention
        gpt_neox_japanese.GPTNeoXJapaneseAttention persimmon.PersimmonAttention
    """,
    ("qkv_proj", "o_proj"): "phi3.Phi3Attention phi4_multimodal.Phi4MultimodalAttention",
    ("qkv_proj", "out_proj"): "codegen.CodeGenAttention",
    ("Wqkv", "out_proj"): "mpt.MptAttention",
    ("Wqkv", "Wo"): "modernbert.ModernBertAttention",
    ("c_attn", "c_proj"): "gpt_bigcode.GPTBigCodeAttention",
    ("qkv", "projection"): "blip.BlipAttention",
}
#: Keys and values from a latent vector.
LATENT = """
        axk1.AXK1Attention deepseek_v2.DeepseekV2Attention deepseek_v3.DeepseekV3Attention
        glm4_moe_lite.Glm4MoeLiteAttention minicpm3.MiniCPM3Attention mistral4.Mistral4Attention youtu.YoutuAttention
"""
#: Experts whose gates, rows in and rows out are one tensor each.
EXPERTS = """
        afmoe.AfmoeExperts aria.AriaExperts axk1.AXK1Experts axk2.AXK2Experts cohere2_moe.Cohere2MoeExperts
        deepseek_v2.DeepseekV2Experts deepseek_v4.DeepseekV4Experts dots3_note.Dots3NoteExperts
        ernie4_5_moe.Ernie4_5_MoeExperts exaone_moe.ExaoneMoeExperts flex_olmo.FlexOlmoExperts
        glm4_moe.Glm4MoeExperts glm4_moe_lite.Glm4MoeLiteExperts granitemoe.GraniteMoeExperts
        granitemoe_swa.GraniteMoeSWAExperts granitemoeshared.GraniteMoeSharedExperts
        hunyuan_v1_moe.HunYuanMoEV1Experts hy_v3.HYV3Experts hy_v4.HYV4Experts inkling2.Inkling2Experts
        jamba.JambaExperts kimi_linear.KimiLinearExperts kolibri1.Kolibri1Experts laguna.LagunaExperts
        mellum.MellumExperts mimo_v2_flash.MiMoV2FlashExperts minimax.MiniMaxExperts minimax_m2.MiniMaxM2Experts
        minimax_m3_vl.MiniMaxM3VLExperts mistral4.Mistral4Experts mistral_large4.MistralLarge4TextExperts
        mixtral.MixtralExperts muse_spark.MuseSparkExperts olmoe.OlmoeExperts phimoe.PhimoeExperts
        qwen2_moe.Qwen2MoeExperts qwen3_5_moe.Qwen3_5MoeExperts qwen3_moe.Qwen3MoeExperts
        qwen3_next.Qwen3NextExperts qwen3_omni_moe.Qwen3OmniMoeThinkerTextExperts
        qwen3_vl_moe.Qwen3VLMoeTextExperts solar_open.SolarOpenExperts unlimited_ocr.UnlimitedOcrTextExperts
        zaya.ZayaExperts
"""
#: A matrix from tokens to experts.
ROUTERS = """
        aria.AriaTextTopKRouter axk1.AXK1TopkRouter axk2.AXK2TopkRouter cohere2_moe.Cohere2MoeTopKRouter
        deepseek_v2.DeepseekV2TopkRouter dots3_note.Dots3NoteTextTopkRouter ernie4_5_moe.Ernie4_5_MoeTopKRouter
        exaone_moe.ExaoneMoeTopkRouter flex_olmo.FlexOlmoTopKRouter glm4_moe.Glm4MoeTopkRouter
        glm4_moe_lite.Glm4MoeLiteTopkRouter granitemoe.GraniteMoeTopKRouter
        granitemoe_swa.GraniteMoeSWATopKRouter granitemoeshared.GraniteMoeSharedTopKRouter hy_v3.HYV3TopKRouter
        hy_v4.HYV4TopkRouter inkling2.Inkling2TopKRouter jamba.JambaTopKRouter kimi_linear.KimiLinearTopkRouter
        kolibri1.Kolibri1TopKRouter laguna.LagunaTopKRouter mellum.MellumTopKRouter
        mimo_v2_flash.MiMoV2FlashTopkRouter minimax.MiniMaxTopKRouter minimax_m2.MiniMaxM2TopKRouter
        minimax_m3_vl.MiniMaxM3VLTopKRouter mistral4.Mistral4TopkRouter
        mistral_large4.MistralLarge4TextTopkRouter mixtral.MixtralTopKRouter muse_spark.MuseSparkTopkRouter
        nemotron_h.NemotronHTopkRouter olmoe.OlmoeTopKRouter phimoe.PhimoeTopKRouter
        qwen2_moe.Qwen2MoeTopKRouter qwen3_5_moe.Qwen3_5MoeTopKRouter qwen3_moe.Qwen3MoeTopKRouter
        qwen3_next.Qwen3NextTopKRouter qwen3_omni_moe.Qwen3OmniMoeThinkerTextTopKRouter
        qwen3_vl_moe.Qwen3VLMoeTextTopKRouter solar_open.SolarOpenTopkRouter
        unlimited_ocr.UnlimitedOcrTextTopkRouter
"""


def classes(text: str) -> Iterator[tuple[str, str]]:
    """The Python module and the name of every class in a text."""
    for word in text.split():
        model, *file, name = word.split(".")
        yield f"transformers.models.{model}.{file[0] if file else f'modeling_{model}'}", name
