//! Which SQL a rule may be made of: see [`crate::rowsql::allowed`], which it shares with all SQL of a contract.

use datafusion::logical_expr::{Expr, Operator};

use crate::rowsql::allowed::{Refusal, check_call, check_pattern, each_node, is_pattern, is_plain, name, refuse};

/// Checks every node of an expression.
pub(super) fn check(expr: &Expr) -> Result<(), Refusal> {
    each_node(expr, &mut 0, "split it into several rules", check_node)
}

fn check_node(node: &Expr) -> Result<(), Refusal> {
    match node {
        Expr::BinaryExpr(binary) if binary.op == Operator::StringConcat => {
            refuse("joins texts with `||`", "compare the parts one by one")
        }
        Expr::BinaryExpr(binary) if is_pattern(binary.op) => check_pattern(&binary.right),
        Expr::Like(like) | Expr::SimilarTo(like) => check_pattern(&like.pattern),
        plain if is_plain(plain) => Ok(()),
        Expr::ScalarFunction(call) => check_call(&call.func, &call.args, &[]),
        other => refuse(format!("has {}", name(other)), "a rule is an expression over the columns of one row"),
    }
}
