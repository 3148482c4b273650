-- Evaluations as they are now: one row per evaluation; a refused one tells no figure but the Ladder's.
select evaluation_id, request_id, run_id, model, benchmark, family, candidate, baseline, baseline_version, recipe_digest,
       attempt, alpha, status, reasons, detail, metric, ladder_score, baseline_value, candidate_value, delta, lower, p_value,
       strata, preregistration, statement
from (
    select evaluation_records.*, row_number() over (partition by evaluation_id order by attempt desc) as place
    from evaluation_records
) where place = 1
