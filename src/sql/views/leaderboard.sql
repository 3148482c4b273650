-- Scores on the Ladder of each benchmark, in the order of attempts: an attempt that is no whole step better shows the best one's score.
select model, benchmark, metric, attempt, ladder_score, evaluation_id, candidate
from evaluations where ladder_score is not null
