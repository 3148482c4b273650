-- Trials of searches: one row per trial and rung; place 1 is the best of its rung, and of the last rung the winner.
select run_id, trial, rung, model, algorithm, seed, iterations, loss,
       case when loss is null then null
            else row_number() over (partition by run_id, rung order by loss is null, loss, trial) end as place,
       params, metrics, reason, detail
from trial_results
