from attnprof.costs.registry import user_cost as cost
