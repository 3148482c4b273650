//! Which SQL a rule may be made of: see [`crate::rowsql::allowed`], which it shares with all SQL of a contract.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, Operator};

use crate::rowsql::allowed::{
    MAX_DEPTH, MAX_NODES, Refusal, check_call, check_pattern, check_size, is_pattern, refuse,
};

/// Checks every node of an expression. Walks with its own stack: the depth is not known yet.
pub(super) fn check(expr: &Expr) -> Result<(), Refusal> {
    let mut stack = vec![(expr, 0)];
    let mut nodes = 0;
    while let Some((node, depth)) = stack.pop() {
        nodes += 1;
        if depth > MAX_DEPTH || nodes > MAX_NODES {
            return refuse(
                "is too deep or too long",
                format!("at most {MAX_DEPTH} levels and {MAX_NODES} terms; split it into several rules"),
            );
        }
        check_node(node)?;
        let visited = node.apply_children(|child| {
            stack.push((child, depth + 1));
            Ok(TreeNodeRecursion::Continue)
        });
        if visited.is_err() {
            return refuse("cannot be read", "write it with simpler operators");
        }
    }
    check_size(expr)
}

fn check_node(node: &Expr) -> Result<(), Refusal> {
    match node {
        Expr::BinaryExpr(binary) if binary.op == Operator::StringConcat => {
            refuse("joins texts with `||`", "compare the parts one by one")
        }
        Expr::BinaryExpr(binary) if is_pattern(binary.op) => check_pattern(&binary.right),
        Expr::Like(like) | Expr::SimilarTo(like) => check_pattern(&like.pattern),
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
        Expr::ScalarFunction(call) => check_call(&call.func, &call.args, &[]),
        other => refuse(format!("has {}", kind(other)), "a rule is an expression over the columns of one row"),
    }
}

fn kind(expr: &Expr) -> &'static str {
    match expr {
        Expr::AggregateFunction(_) => "an aggregate",
        Expr::WindowFunction(_) => "a window function",
        Expr::Exists(_) | Expr::InSubquery(_) | Expr::ScalarSubquery(_) | Expr::SetComparison(_) => "a subquery",
        Expr::Placeholder(_) => "a parameter",
        Expr::ScalarVariable(..) => "a variable",
        _ => "an operator that rules may not use",
    }
}
