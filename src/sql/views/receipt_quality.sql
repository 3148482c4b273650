-- Quality dimensions of each receipt: one row per receipt and dimension; the losses add up to -ln of the score before gates.
select contribution_id, contributor, model, score, entry['name'] as dimension, entry['value'] as value,
       entry['weight'] as weight, entry['loss'] as loss, entry['measured'] as measured
from (select contribution_id, contributor, model, quality['score'] as score, unnest(quality['dimensions']) as entry from receipts)
