"""The step that is running: where it is on its way, and what was counted of it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from attnprof.capture.track import Track, number_of_nodes
from attnprof.capture.ways import END, Piece, Way, Ways

if TYPE_CHECKING:
    from attnprof.capture.recorder import Recorder

#: The calls of one segment that are told from those of another: more is a program that marks no steps.
LONGEST = 100_000


class RunningStep:
    """From one ``prof.step()`` to the next."""

    def __init__(self, recorder: Recorder, ways: Ways) -> None:
        self._recorder, self._ways = recorder, ways
        self.track: Track | None = None  # that it follows; while it does, nothing below says where it is
        self.way = ways.start
        self.segment: list[int] = []  # the one that is running
        self._any_bare = False  # some segment of it ran bare
        self._first_node = 0  # autograd's number of the first node that the segment can have made
        self._at = 0  # the op calls before the piece that is being counted

    def restart(self) -> None:
        """One ended, and the next begins."""
        self.track, self.way, self._any_bare = None, self._ways.start, False
        self.segment.clear()
        self._first_node = number_of_nodes()

    def count_from_here(self) -> None:
        """What comes now is counted."""
        self._at = self._recorder.op_calls()

    @property
    def has_begun(self) -> bool:
        """Whether it has called anything; it is on no track."""
        return bool(self.segment) or self.way is not self._ways.start

    # On the track of the one before

    def is_on_track(self, number: int) -> bool:
        """Whether this call or optimizer's step is what came next in the step before; else it leaves the track."""
        if self.track is None:
            return False
        if self.track.goes_on(number):
            return True
        self.leave_track()
        return False

    def leave_track(self) -> None:
        """Put down what it has gone so far of the way that it followed."""
        track, self.track = self.track, None
        if track is None:
            return
        ended, self.segment, self._first_node = track.so_far()
        numbers = ended[0][0] if ended else self.segment
        if numbers:
            self._ways.unled(numbers[0])
        for stretch in ended:
            self.way = self._ways.reused(self.way, stretch)
            self._any_bare = True

    # Elsewhere

    def end_lead(self, first: int, *, is_any: bool) -> None:
        """The first call of it comes; what was before is a lead, or was to set things up."""
        if self._recorder.is_suspended:
            self._ways.unled(first)
        else:
            lead = self._cut()
            if is_any:
                self._ways.led(first, lead)

    def begin_segment(self, number: int) -> None:
        """With a call of the model or a step of an optimizer, by number."""
        self.segment.append(number)
        self._first_node = number_of_nodes()

    def goes_on(self, number: int) -> None:
        """Another call, in the segment that is running."""
        if len(self.segment) < LONGEST:
            self.segment.append(number)

    def end_segment(self, then: int) -> None:
        """``then`` is what begins: a step of an optimizer, a call of the model, or the next step."""
        recorder, segment = self._recorder, tuple(self.segment)
        self.segment.clear()
        nodes = None if _has_compiled() else number_of_nodes() - self._first_node
        if recorder.is_suspended:
            self._any_bare = True
            self.way = self._ways.reused(self.way, (segment, then, nodes))
        else:
            events, known = recorder.events_of_thread(), recorder.signatures.known
            self.way = self._ways.counted(self.way, (segment, then, nodes), self._cut(), events, known)

    def end(self) -> Way:
        """The way that it went; a counted one if all of it was, from its first call on."""
        track = self.track
        if track is not None and track.goes_on(END):
            for piece in track.pieces:
                piece.times += 1
            self._ways.ended(track.way, counted=False)
            track.restart()
            return track.way
        self.leave_track()
        self.end_segment(END)
        self._ways.ended(self.way, counted=not self._any_bare)
        return self.way

    def _cut(self) -> Piece:
        """What was counted since the last cut."""
        piece = Piece(self._at, self._recorder.op_calls(), self._recorder.take_calls())
        self._ways.pieces.append(piece)
        self._at = piece.stop
        return piece


def _has_compiled() -> bool:
    """Whether anything was compiled in this process: such code makes other nodes than it does while counted."""
    frames = sys.modules.get("torch._dynamo.convert_frame")
    return frames is not None and frames.FRAME_COUNTER > 0
