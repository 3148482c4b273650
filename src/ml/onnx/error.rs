//! Why a file is no model that can be run here.

/// Why an ONNX file is refused.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum OnnxError {
    /// No ONNX, or a damaged file.
    #[error("this is no ONNX model: {0}\nhelp: save it again with the program that made it")]
    Form(String),
    /// Past a limit.
    #[error("the ONNX model has more {what} than {limit}\nhelp: export a smaller model")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much there may be.
        limit: usize,
    },
    /// Valid, and not run here; says the way out.
    #[error("the ONNX model cannot be run here: {0}")]
    Unsupported(String),
    /// An operator that is not run here.
    #[error(
        "the ONNX model needs the operator {domain}.{op} (opset {opset}, {node}), which is not run here\nhelp: export it without, or \
         do that step before the features; ARCHITECTURE.md lists the operators"
    )]
    Operator {
        /// Its domain.
        domain: String,
        /// Its name.
        op: String,
        /// The version that the file asks for.
        opset: i64,
        /// Where it stands.
        node: String,
    },
    /// A problem inside of an operator, before its node is known.
    #[error("{0}")]
    Problem(String),
    /// A problem of one operator.
    #[error("{node} ({op}, opset {opset}): {problem}")]
    Node {
        /// Where it stands.
        node: String,
        /// The operator.
        op: String,
        /// The version that the file asks for.
        opset: i64,
        /// What is wrong.
        problem: String,
    },
}

impl OnnxError {
    /// Reason code of a refusal.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Form(_) => "BAD_ONNX",
            Self::Limit { .. } => "ONNX_TOO_LARGE",
            _ => "UNSUPPORTED_ONNX",
        }
    }
}
