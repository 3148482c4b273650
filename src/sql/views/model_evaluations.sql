-- Evaluations of the versions as they are now: one row per evaluation; a refused one tells its reasons only.
select model, version, entry['evaluation_id'] as evaluation_id, entry['benchmark'] as benchmark,
       entry['baseline'] as baseline, entry['status'] as status, entry['reasons'] as reasons,
       entry['metric'] as metric, entry['delta'] as delta, entry['lower'] as lower, entry['statement'] as statement
from (select model, version, unnest(evaluations) as entry from model_versions)
