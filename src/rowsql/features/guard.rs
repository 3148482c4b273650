//! Which SELECTs may run: those whose result for a row follows from the row and the reference tables alone, on every machine.
//!
//! ```text
//! SELECT … FROM rows [LEFT|INNER JOIN table ON a = b …]…            a feature
//! SELECT * FROM rows [LEFT|INNER JOIN …]… [WHERE …]                 a step
//! table: a reference table, or (SELECT … FROM reference [WHERE …] [GROUP BY …])
//! ```
//!
//! The plan is walked before anything is optimised; what is not known here is refused by its name. So rows can be taken in pieces of any
//! size, in any company, and the cost of a piece is bounded.

use datafusion::common::JoinType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Aggregate, BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator};

use super::{ROW, SHARE};
use crate::domain::contract::sql::ROWS;
use crate::ml::derivation::Table;
use crate::rowsql::allowed::{Refusal, check_call, check_pattern, each_node, is_pattern, is_plain, refuse};
use crate::rowsql::pinned::PINNED;

/// Aggregates over reference tables whose result does not depend on an order.
const AGGREGATES: [&str; 6] = ["count", "min", "max", "sum", "bool_and", "bool_or"];

/// Most `||` of a SELECT.
const MAX_JOINED: usize = 16;

/// What a SELECT has taken of its limits.
#[derive(Default)]
struct Taken {
    nodes: usize,
    joined: usize,
}

type Checked = Result<(), Refusal>;

/// What a SELECT is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    /// It adds columns to every row.
    Feature,
    /// It lets training rows through.
    Step,
}

/// What stands below the columns of a SELECT that may run.
pub(super) fn check<'p>(plan: &'p LogicalPlan, purpose: For, tables: &[Table]) -> Result<&'p LogicalPlan, Refusal> {
    check_tables(plan, tables)?;
    let LogicalPlan::Projection(top) = plan else {
        let help = "write SELECT … FROM rows, with joins of reference tables alone";
        return refuse(format!("is no plain SELECT but {}", name(plan)), help);
    };
    let mut taken = Taken::default();
    if purpose == For::Feature {
        top.expr.iter().try_for_each(|expr| check_expr(expr, purpose, &mut taken))?;
    }
    let mut below = &*top.input;
    if let LogicalPlan::Filter(filter) = below {
        if purpose == For::Feature {
            return refuse(
                "has WHERE, which loses rows",
                "write a CASE, or a condition of the join; steps filter rows",
            );
        }
        check_expr(&filter.predicate, purpose, &mut taken)?;
        below = &filter.input;
    }
    loop {
        below = match below {
            LogicalPlan::SubqueryAlias(alias) if is_rows(&alias.input) => return Ok(&top.input),
            LogicalPlan::Join(join) => {
                if !matches!(join.join_type, JoinType::Left | JoinType::Inner) {
                    let help = "write `FROM rows LEFT JOIN table ON …`";
                    return refuse(format!("has a {} join", join.join_type), help);
                }
                for (left, right) in &join.on {
                    check_expr(left, purpose, &mut taken)?;
                    check_expr(right, purpose, &mut taken)?;
                }
                if let Some(condition) = &join.filter {
                    check_expr(condition, purpose, &mut taken)?;
                }
                check_reference(&join.right, &mut taken)?;
                &*join.left
            }
            scan if is_rows(scan) => return Ok(&top.input),
            other => {
                let help = format!("`{ROWS}` comes first in FROM, once, and reference tables are joined to it");
                return refuse(format!("has {} where `{ROWS}` belongs", name(other)), help);
            }
        }
    }
}

/// Functions that make tables stand in a plan as tables do.
fn check_tables(plan: &LogicalPlan, tables: &[Table]) -> Checked {
    let mut stranger = None;
    let walked = plan.apply(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            let table = scan.table_name.table();
            if table != ROWS && !tables.iter().any(|known| known.name == table) {
                stranger = Some(table.to_owned());
            }
        }
        Ok(TreeNodeRecursion::Continue)
    });
    match stranger {
        Some(table) => {
            refuse(format!("reads `{table}`"), "there are `rows` and the tables under `learning.references`")
        }
        None if walked.is_err() => refuse("cannot be read", "write it simpler"),
        None => Ok(()),
    }
}

fn is_rows(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::TableScan(scan) if scan.table_name.table() == ROWS)
}

/// A table that is joined: nothing in it depends on rows.
fn check_reference(plan: &LogicalPlan, taken: &mut Taken) -> Checked {
    let mut below = plan;
    loop {
        below = match below {
            LogicalPlan::TableScan(scan) if scan.table_name.table() == ROWS => {
                let help = "what a row is given may not depend on others: aggregate a reference table";
                return refuse(format!("joins `{ROWS}` to itself"), help);
            }
            LogicalPlan::TableScan(_) => return Ok(()),
            LogicalPlan::SubqueryAlias(alias) => &*alias.input,
            LogicalPlan::Projection(projection) => {
                for expr in &projection.expr {
                    check_expr(expr, For::Feature, taken)?;
                }
                &*projection.input
            }
            LogicalPlan::Filter(filter) => {
                check_expr(&filter.predicate, For::Feature, taken)?;
                &*filter.input
            }
            LogicalPlan::Aggregate(aggregate) => {
                aggregate.group_expr.iter().try_for_each(|expr| check_expr(expr, For::Feature, taken))?;
                aggregate.aggr_expr.iter().try_for_each(|expr| check_aggregate(expr, taken))?;
                &*aggregate.input
            }
            other => {
                let help = "join a reference table, or a SELECT of one with WHERE and GROUP BY";
                return refuse(format!("joins what has {}", name(other)), help);
            }
        }
    }
}

fn check_aggregate(expr: &Expr, taken: &mut Taken) -> Checked {
    let Expr::AggregateFunction(AggregateFunction { func, params }) = expr.clone().unalias() else {
        return refuse("has an aggregate of another form", "write count, min, max or sum");
    };
    if !AGGREGATES.contains(&func.name()) {
        let help = format!("these are allowed: {}", AGGREGATES.join(", "));
        return refuse(format!("calls `{}`, whose result may depend on an order", func.name()), help);
    }
    if params.filter.is_some() || !params.order_by.is_empty() || params.null_treatment.is_some() {
        return refuse("has an aggregate with FILTER, ORDER BY or NULLS", "use WHERE, or a CASE as its argument");
    }
    for argument in &params.args {
        check_expr(argument, For::Feature, taken)?;
    }
    Ok(())
}

/// Checks every node of an expression.
fn check_expr(expr: &Expr, purpose: For, taken: &mut Taken) -> Checked {
    let Taken { nodes, joined } = taken;
    each_node(expr, nodes, "write several", |node| {
        check_node(node, purpose)?;
        // `x || x || …` is longer than the row that it is made of.
        *joined += usize::from(matches!(node, Expr::BinaryExpr(BinaryExpr { op: Operator::StringConcat, .. })));
        if *joined > MAX_JOINED {
            return refuse(format!("joins more than {MAX_JOINED} texts with `||`"), "join fewer");
        }
        Ok(())
    })
}

fn check_node(node: &Expr, purpose: For) -> Checked {
    match node {
        Expr::Column(column) if column.name == ROW || (column.name == SHARE && purpose == For::Feature) => {
            refuse(format!("reads `{}`, which is no column of a row", column.name), "name the columns that it needs")
        }
        Expr::BinaryExpr(binary) if is_pattern(binary.op) => check_pattern(&binary.right),
        Expr::Like(like) | Expr::SimilarTo(like) => check_pattern(&like.pattern),
        Expr::ScalarFunction(call) => check_call(&call.func, &call.args, &PINNED),
        plain if is_plain(plain) => Ok(()),
        Expr::AggregateFunction(_) => refuse("has an aggregate over rows", ROW_BY_ROW),
        Expr::WindowFunction(_) => refuse("has a window function", ROW_BY_ROW),
        Expr::Exists(_) | Expr::InSubquery(_) | Expr::ScalarSubquery(_) | Expr::SetComparison(_) => {
            refuse("has a subquery in an expression", "join it: LEFT JOIN (SELECT …) name ON …")
        }
        _ => refuse("has an operator that is not known to be the same everywhere", "write it with simpler operators"),
    }
}

const ROW_BY_ROW: &str =
    "a row's result follows from the row and reference tables: aggregate those in a joined (SELECT … GROUP BY …)";

/// What shows once types and equalities were made out: joins have an equality, without which every row would meet every row of the
/// table; and sums are of whole numbers.
pub(super) fn check_planned(plan: &LogicalPlan) -> Checked {
    let mut found = Ok(());
    let walked = plan.apply(|node| {
        found = match node {
            LogicalPlan::Join(join) if join.on.is_empty() => {
                refuse("has a join without an equality", "write `ON rows.x = table.y`, and more conditions with AND")
            }
            LogicalPlan::Join(join) if reads_rows(&join.right) => {
                refuse(format!("joins `{ROWS}` to a table"), "write `FROM rows LEFT JOIN table ON …`")
            }
            LogicalPlan::Aggregate(aggregate) if sums_fractions(aggregate) => {
                let help = "cast to a DECIMAL, whose sum is exact, as in sum(CAST(x AS DECIMAL(18, 6)))";
                refuse("sums fractions, which depends on their order", help)
            }
            _ => return Ok(TreeNodeRecursion::Continue),
        };
        Ok(TreeNodeRecursion::Stop)
    });
    if walked.is_err() { refuse("cannot be read", "write it simpler") } else { found }
}

fn reads_rows(plan: &LogicalPlan) -> bool {
    plan.exists(|node| Ok(is_rows(node))).unwrap_or(true)
}

fn sums_fractions(aggregate: &Aggregate) -> bool {
    let schema = aggregate.input.schema();
    aggregate.aggr_expr.iter().any(|expr| match expr.clone().unalias() {
        Expr::AggregateFunction(AggregateFunction { func, params }) if func.name() == "sum" => {
            params.args.iter().any(|own| !own.get_type(schema).is_ok_and(|kind| !kind.is_floating()))
        }
        _ => false,
    })
}

/// The joins of a plan: what is joined, and its side of the equalities.
pub(super) fn joined(plan: &LogicalPlan) -> Vec<(LogicalPlan, Vec<Expr>)> {
    let mut all = Vec::new();
    // Does not fail: what is called for each node does not.
    let _ = plan.apply(|node| {
        if let LogicalPlan::Join(join) = node {
            all.push(((*join.right).clone(), join.on.iter().map(|(_, right)| right.clone()).collect()));
        }
        Ok(TreeNodeRecursion::Continue)
    });
    all
}

fn name(plan: &LogicalPlan) -> &'static str {
    match plan {
        LogicalPlan::Aggregate(_) => "GROUP BY or an aggregate",
        LogicalPlan::Window(_) => "a window function",
        LogicalPlan::Sort(_) => "ORDER BY",
        LogicalPlan::Limit(_) => "LIMIT",
        LogicalPlan::Distinct(_) => "DISTINCT",
        LogicalPlan::Union(_) => "a union of SELECTs",
        LogicalPlan::Filter(_) => "HAVING or a second WHERE",
        LogicalPlan::Subquery(_) | LogicalPlan::SubqueryAlias(_) | LogicalPlan::Projection(_) => {
            "a SELECT in parentheses"
        }
        LogicalPlan::Join(_) => "a join",
        LogicalPlan::TableScan(_) => "another table",
        LogicalPlan::EmptyRelation(_) | LogicalPlan::Values(_) => "no table",
        LogicalPlan::Unnest(_) => "UNNEST",
        LogicalPlan::RecursiveQuery(_) => "a recursive query",
        _ => "a statement that is no SELECT",
    }
}
