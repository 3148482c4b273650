-- Who is credited with what: one row per attribution and contributor; members of one player share its value and error.
select credited.evaluation_id, model, benchmark, metric, delta, delta_game, credited.contributor, contributor_rows, contributors,
       value, denominator, effect, standard_error, leave_one_out, significant, payable, reasons, basis_points, payout_address,
       statement
from (
    select *, member['contributor'] as contributor, member['rows'] as contributor_rows from (
        select evaluation_id, model, benchmark, metric, delta, delta_game, denominator, payable, reasons, statement,
               player['contributors'] as contributors, player['value'] as value, player['effect'] as effect,
               player['standard_error'] as standard_error, player['leave_one_out'] as leave_one_out,
               player['significant'] as significant, unnest(player['members']) as member
        from (select *, unnest(players) as player from attributions where status = 'attributed'))
) as credited
left join (
    select evaluation_id, entry['contributor'] as contributor, entry['basis_points'] as basis_points,
           entry['payout_address'] as payout_address
    from (select evaluation_id, unnest(shares) as entry from attributions where status = 'attributed')
) as paid on credited.evaluation_id = paid.evaluation_id and credited.contributor = paid.contributor
