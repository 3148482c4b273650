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

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, JoinType};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Volatility};

use super::functions::PINNED;
use super::{ROW, SHARE};
use crate::domain::contract::sql::ROWS;
use crate::ml::derivation::Table;
use crate::stages::intake::sql::{FUNCTIONS, MAX_DEPTH, MAX_NODES, Refusal, check_pattern, is_pattern};

/// Aggregates over reference tables whose result does not depend on an order.
const AGGREGATES: [&str; 6] = ["count", "min", "max", "sum", "bool_and", "bool_or"];

type Checked = Result<(), Refusal>;

pub(super) fn refuse<T>(problem: impl Into<String>, help: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { problem: problem.into(), help: help.into() })
}

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
    let mut nodes = 0;
    if purpose == For::Feature {
        top.expr.iter().try_for_each(|expr| check_expr(expr, purpose, &mut nodes))?;
    }
    let mut below = &*top.input;
    if let LogicalPlan::Filter(filter) = below {
        if purpose == For::Feature {
            return refuse(
                "has WHERE, which loses rows",
                "write a CASE, or a condition of the join; steps filter rows",
            );
        }
        check_expr(&filter.predicate, purpose, &mut nodes)?;
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
                    check_expr(left, purpose, &mut nodes)?;
                    check_expr(right, purpose, &mut nodes)?;
                }
                if let Some(condition) = &join.filter {
                    check_expr(condition, purpose, &mut nodes)?;
                }
                check_reference(&join.right, &mut nodes)?;
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
fn check_reference(plan: &LogicalPlan, nodes: &mut usize) -> Checked {
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
                    check_expr(expr, For::Feature, nodes)?;
                }
                &*projection.input
            }
            LogicalPlan::Filter(filter) => {
                check_expr(&filter.predicate, For::Feature, nodes)?;
                &*filter.input
            }
            LogicalPlan::Aggregate(aggregate) => {
                let schema = aggregate.input.schema();
                aggregate.group_expr.iter().try_for_each(|expr| check_expr(expr, For::Feature, nodes))?;
                aggregate.aggr_expr.iter().try_for_each(|expr| check_aggregate(expr, schema, nodes))?;
                &*aggregate.input
            }
            other => {
                let help = "join a reference table, or a SELECT of one with WHERE and GROUP BY";
                return refuse(format!("joins what has {}", name(other)), help);
            }
        }
    }
}

fn check_aggregate(expr: &Expr, schema: &DFSchema, nodes: &mut usize) -> Checked {
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
        check_expr(argument, For::Feature, nodes)?;
        if func.name() == "sum" && argument.get_type(schema).is_ok_and(|kind| kind.is_floating()) {
            let help = "cast to a DECIMAL, whose sum is exact, as in sum(CAST(x AS DECIMAL(18, 6)))";
            return refuse("sums fractions, which depends on their order", help);
        }
    }
    Ok(())
}

/// Checks every node of an expression. Walks with its own stack: the depth is not known yet.
fn check_expr(expr: &Expr, purpose: For, nodes: &mut usize) -> Checked {
    let mut stack = vec![(expr, 0)];
    while let Some((node, depth)) = stack.pop() {
        *nodes += 1;
        if depth > MAX_DEPTH || *nodes > MAX_NODES {
            let help = format!("at most {MAX_DEPTH} levels and {MAX_NODES} terms; write several");
            return refuse("is too deep or too long", help);
        }
        check_node(node, purpose)?;
        let visited = node.apply_children(|child| {
            stack.push((child, depth + 1));
            Ok(TreeNodeRecursion::Continue)
        });
        if visited.is_err() {
            return refuse("cannot be read", "write it with simpler operators");
        }
    }
    Ok(())
}

fn check_node(node: &Expr, purpose: For) -> Checked {
    match node {
        Expr::Column(column) if column.name == ROW || (column.name == SHARE && purpose == For::Feature) => {
            refuse(format!("reads `{}`, which is no column of a row", column.name), "name the columns that it needs")
        }
        Expr::BinaryExpr(binary) if is_pattern(binary.op) => check_pattern(&binary.right),
        Expr::Like(like) | Expr::SimilarTo(like) => check_pattern(&like.pattern),
        Expr::ScalarFunction(call) => check_call(call.func.name(), call.func.signature().volatility, &call.args),
        Expr::Alias(_)
        | Expr::Column(_)
        | Expr::Literal(..)
        | Expr::BinaryExpr(_)
        | Expr::Not(_)
        | Expr::IsNotNull(_)
        | Expr::IsNull(_)
        | Expr::IsTrue(_)
        | Expr::IsFalse(_)
        | Expr::IsUnknown(_)
        | Expr::IsNotTrue(_)
        | Expr::IsNotFalse(_)
        | Expr::IsNotUnknown(_)
        | Expr::Negative(_)
        | Expr::Between(_)
        | Expr::Case(_)
        | Expr::Cast(_)
        | Expr::TryCast(_)
        | Expr::InList(_) => Ok(()),
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

fn check_call(name: &str, volatility: Volatility, arguments: &[Expr]) -> Checked {
    if volatility != Volatility::Immutable {
        let help = "the same row has to give the same result at any time";
        return refuse(format!("calls `{name}`, whose result depends on more than its arguments"), help);
    }
    if !FUNCTIONS.contains(&name) && !PINNED.contains(&name) {
        let help = format!("these are allowed: {}, {}", FUNCTIONS.join(", "), PINNED.join(", "));
        return refuse(format!("calls `{name}`, which is not known to be the same on every machine"), help);
    }
    match arguments.get(1) {
        Some(pattern) if name == "regexp_like" => check_pattern(pattern),
        _ => Ok(()),
    }
}

/// Joins of an optimised plan have an equality: without one, every row would meet every row of the table.
pub(super) fn check_joins(plan: &LogicalPlan) -> Checked {
    let mut bad = false;
    let walked = plan.apply(|node| {
        bad |= matches!(node, LogicalPlan::Join(join) if join.on.is_empty());
        Ok(TreeNodeRecursion::Continue)
    });
    match walked.is_err() || bad {
        true => refuse("has a join without an equality", "write `ON rows.x = table.y`, and more conditions with AND"),
        false => Ok(()),
    }
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
