//! What all SQL of a contract is held to: a fixed list of functions, literal patterns, limits on its text.
//!
//! A row's result may depend on the row alone, cost little, and be the same on every platform. So functions come
//! from a fixed list of immutable ones: without functions that make large values out of small ones (`repeat`,
//! `lpad`; `replace` only by what is no longer) and without those that call the platform's mathematics library (`ln`, `exp`, `sin`). Patterns are literals: a pattern from a
//! cell would let a contributor decide what a row costs.

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::logical_expr::{Case, Expr, Operator, ScalarUDF, Volatility};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

const MAX_DEPTH: usize = 64;
const MAX_NODES: usize = 2_000;
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

/// Why a text may not run as SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong.
    pub problem: String,
    /// The way out.
    pub help: String,
}

pub(crate) fn refuse<T>(problem: impl Into<String>, help: impl Into<String>) -> Result<T, Refusal> {
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

/// Nodes of the expression once [`executable`] has written it: a `coalesce` has all its arguments but the last twice, so nested ones grow
/// as a power of their depth. Recurses: for expressions whose depth was checked.
fn check_size(expr: &Expr) -> Result<(), Refusal> {
    if written_out(expr) > MAX_NODES {
        return refuse(format!("has more than {MAX_NODES} terms once coalesce is written as CASE"), SPLIT);
    }
    Ok(())
}

fn written_out(expr: &Expr) -> usize {
    let mut all = 1_usize;
    let coalesced = matches!(expr, Expr::ScalarFunction(call) if matches!(call.func.name(), "coalesce" | "nvl"));
    let mut last = 0;
    // Does not fail: what is called for each child does not.
    let _ = expr.apply_children(|child| {
        let own = written_out(child);
        all = all.saturating_add(if coalesced { own.saturating_mul(2) } else { own });
        last = own;
        Ok(TreeNodeRecursion::Continue)
    });
    if coalesced { all - last } else { all }
}

fn first_known(mut args: Vec<Expr>) -> Expr {
    let last = args.pop().unwrap_or(Expr::Literal(ScalarValue::Null, None));
    if args.is_empty() {
        return last;
    }
    let known = |arg: Expr| (Box::new(arg.clone().is_not_null()), Box::new(arg));
    Expr::Case(Case::new(None, args.into_iter().map(known).collect(), Some(Box::new(last))))
}

/// Calls `check` for every node of an expression, parents first; `nodes` counts them, over several expressions if need be. Walks with its
/// own stack: the depth is not known yet.
pub(crate) fn each_node(
    expr: &Expr,
    nodes: &mut usize,
    way_out: &str,
    mut check: impl FnMut(&Expr) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let mut stack = vec![(expr, 0)];
    while let Some((node, depth)) = stack.pop() {
        *nodes += 1;
        if depth > MAX_DEPTH || *nodes > MAX_NODES {
            let help = format!("at most {MAX_DEPTH} levels and {MAX_NODES} terms; {way_out}");
            return refuse("is too deep or too long", help);
        }
        check(node)?;
        let visited = node.apply_children(|child| {
            stack.push((child, depth + 1));
            Ok(TreeNodeRecursion::Continue)
        });
        visited.or_else(|_| refuse("cannot be read", "write it with simpler operators"))?;
    }
    check_size(expr)
}

/// Whether a node is of a row's own cells and costs what it says, its operator and its arguments aside.
pub(crate) fn is_plain(node: &Expr) -> bool {
    matches!(
        node,
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
            | Expr::InList(_)
    )
}

/// What a node that is not plain is called.
pub(crate) fn name(node: &Expr) -> &'static str {
    match node {
        Expr::AggregateFunction(_) => "an aggregate",
        Expr::WindowFunction(_) => "a window function",
        Expr::Exists(_) | Expr::InSubquery(_) | Expr::ScalarSubquery(_) | Expr::SetComparison(_) => "a subquery",
        Expr::Placeholder(_) => "a parameter",
        Expr::ScalarVariable(..) => "a variable",
        _ => "an operator that is not allowed",
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

/// Refuses a call whose result depends on more than its arguments, or may be far larger than they are. `more` are functions that are
/// allowed beside those of the list.
pub(crate) fn check_call(function: &ScalarUDF, arguments: &[Expr], more: &[&str]) -> Result<(), Refusal> {
    let name = function.name();
    if function.signature().volatility != Volatility::Immutable {
        let help = "the same row has to give the same result at any time";
        return refuse(format!("calls `{name}`, whose result depends on more than its arguments"), help);
    }
    if !FUNCTIONS.contains(&name) && !more.contains(&name) {
        let all = [FUNCTIONS, more].concat().join(", ");
        let problem = format!("calls `{name}`, which is not known to be bounded and the same on every machine");
        return refuse(problem, format!("these are allowed: {all}"));
    }
    match (name, arguments) {
        ("regexp_like", [_, pattern, ..]) => check_pattern(pattern),
        ("replace", [_, old, new]) => match (text(old), text(new)) {
            (Some(old), Some(new)) if !old.is_empty() && new.len() <= old.len() => Ok(()),
            _ => refuse(
                "calls `replace` with something else than two texts in quotes, the second no longer than the first",
                "a cell may not decide how large its result is",
            ),
        },
        _ => Ok(()),
    }
}

fn text(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Literal(value, _) => value.try_as_str().flatten(),
        _ => None,
    }
}
