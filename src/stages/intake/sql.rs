//! Which SQL a rule may be made of.
//!
//! A rule's result may depend on the row alone, cost little, and be the same on every platform. So functions come
//! from a fixed list of immutable ones: without functions that make large values out of small ones (`repeat`,
//! `lpad`, `replace`, `||`) and without those that call the platform's mathematics library (`ln`, `exp`, `sin`).
//! Patterns are literals: a pattern from a cell would let a contributor decide what a row costs.

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::logical_expr::{Case, Expr, Operator};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use super::contract::is_immutable;

pub(crate) const MAX_DEPTH: usize = 64;
pub(crate) const MAX_NODES: usize = 2_000;
/// Levels of recursion in the SQL parser. It tries a call such as `POSITION(` up to three ways and each way its arguments anew, so a
/// syntax error inside n levels costs 3^n: a quarter of a second here, an hour at DataFusion's default of 50. Twelve levels are ten
/// nested calls or five nested groups of AND and OR.
pub(crate) const MAX_NESTING: usize = 12;
/// A `CASE` that cannot be parsed is tried again as a name, and the limit on nesting does not count those.
const MAX_CASES: usize = 10;

pub(crate) const FUNCTIONS: &[&str] = &[
    "abs",
    "ceil",
    "floor",
    "round",
    "trunc",
    "sqrt",
    "signum",
    "iszero",
    "isnan",
    "gcd",
    "lcm",
    "coalesce",
    "nullif",
    "nvl",
    "greatest",
    "least",
    "character_length",
    "octet_length",
    "bit_length",
    "lower",
    "upper",
    "btrim",
    "ltrim",
    "rtrim",
    "substr",
    "left",
    "right",
    "reverse",
    "starts_with",
    "ends_with",
    "contains",
    "strpos",
    "split_part",
    "replace",
    "regexp_like",
    "date_part",
    "date_trunc",
    "to_date",
    "to_timestamp",
    "ascii",
];

/// Why an expression is no rule.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub problem: String,
    pub help: String,
}

fn refuse<T>(problem: impl Into<String>, help: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { problem: problem.into(), help: help.into() })
}

/// Refuses what the parser would take exponential time or unbounded stack for, by the words alone: many `CASE`, and `INTERVAL` before
/// anything but a literal, which it parses without counting levels.
pub(crate) fn check_text(text: &str) -> Result<(), Refusal> {
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, text).tokenize() else {
        return Ok(()); // the parser has the same tokenizer and says what is wrong
    };
    let mut cases = 0;
    let mut tokens = tokens.iter().filter(|token| !matches!(token, Token::Whitespace(_))).peekable();
    while let Some(token) = tokens.next() {
        let Token::Word(word) = token else { continue };
        match word.keyword {
            Keyword::CASE => cases += 1,
            Keyword::INTERVAL if matches!(tokens.peek(), Some(next) if !matches!(next, Token::SingleQuotedString(_) | Token::Number(..))) =>
            {
                return refuse("has INTERVAL before something else than a literal", "write it like INTERVAL '1 day'");
            }
            _ => {}
        }
    }
    if cases > MAX_CASES {
        return refuse(format!("has more than {MAX_CASES} CASE"), SPLIT);
    }
    Ok(())
}

/// The refusal of a text that the parser found too deep.
pub(crate) fn too_deep(error: &DataFusionError) -> Option<Refusal> {
    match error.find_root() {
        DataFusionError::SQL(parser, _) if **parser == ParserError::RecursionLimitExceeded => {
            Some(Refusal { problem: format!("is nested deeper than {MAX_NESTING} levels"), help: SPLIT.to_owned() })
        }
        _ => None,
    }
}

const SPLIT: &str = "write it flatter, or split it into several rules: each of them has to hold";

/// The expression with `coalesce` and `nvl` as CASE: DataFusion computes them only after its optimiser has written them so, and what is
/// planned here does not pass through it.
pub(crate) fn executable(expr: Expr) -> Result<Expr, DataFusionError> {
    let done = expr.transform_up(|node| {
        Ok(match node {
            Expr::ScalarFunction(call) if matches!(call.func.name(), "coalesce" | "nvl") => {
                Transformed::yes(first_known(call.args))
            }
            other => Transformed::no(other),
        })
    })?;
    Ok(done.data)
}

fn first_known(mut args: Vec<Expr>) -> Expr {
    let last = args.pop().unwrap_or(Expr::Literal(ScalarValue::Null, None));
    if args.is_empty() {
        return last;
    }
    let known = |arg: Expr| (Box::new(arg.clone().is_not_null()), Box::new(arg));
    Expr::Case(Case::new(None, args.into_iter().map(known).collect(), Some(Box::new(last))))
}

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
    Ok(())
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
        Expr::ScalarFunction(call) => {
            let name = call.func.name();
            let volatility = call.func.signature().volatility;
            if !is_immutable(volatility) {
                return refuse(
                    format!("calls `{name}`, whose result depends on more than the row"),
                    "a rule may call immutable functions only",
                );
            }
            if !FUNCTIONS.contains(&name) {
                return refuse(
                    format!("calls `{name}`, which rules may not"),
                    format!("these are allowed: {}", FUNCTIONS.join(", ")),
                );
            }
            match call.args.get(1) {
                Some(pattern) if name == "regexp_like" => check_pattern(pattern),
                _ => Ok(()),
            }
        }
        other => refuse(format!("has {}", kind(other)), "a rule is an expression over the columns of one row"),
    }
}

pub(crate) fn is_pattern(operator: Operator) -> bool {
    use Operator::*;
    matches!(
        operator,
        RegexMatch
            | RegexIMatch
            | RegexNotMatch
            | RegexNotIMatch
            | LikeMatch
            | ILikeMatch
            | NotLikeMatch
            | NotILikeMatch
    )
}

pub(crate) fn check_pattern(pattern: &Expr) -> Result<(), Refusal> {
    match pattern {
        Expr::Literal(..) => Ok(()),
        _ => refuse("has a pattern that is not written out", "write the pattern as a text in quotes"),
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
