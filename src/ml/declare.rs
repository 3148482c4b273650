//! From a model's contract to what a learner needs: the label's column, the task, the declared encoding.
//!
//! The contract says it under `learning`; what it does not say follows from the columns ([`learning`](crate::domain::contract::learning)).
//! A pure function of the contract: the same contract, the same declaration, and so the same recipe.

use crate::domain::contract::learning::{Part, ResolvedEncode, ResolvedFeature, Split, Target};
use crate::domain::contract::{Spec, SpecError};
use crate::ml::Task;
use crate::ml::derivation::Derivation;
use crate::ml::encoding::{Declared, Encode, MAX_LEVELS, TimePart};

/// What is learned under a contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declaration {
    /// Column of the label.
    pub label: String,
    /// What is predicted; the classes are the contract's, whether rows have them or not.
    pub task: Task,
    /// Features in the order of the contract's columns, then those that SQL adds.
    pub features: Vec<Declared>,
    /// How the validation fold is cut; none draws row by row.
    pub validation: Option<Split>,
    /// What SQL makes of rows before; its tables are fetched by whoever learns.
    pub derivation: Derivation,
}

/// The declaration of a contract.
///
/// # Errors
/// [`SpecError`] with the path: no label, one class or too many, no feature.
pub fn declaration(spec: &Spec) -> Result<Declaration, SpecError> {
    let resolved = spec.learning()?;
    let task = match resolved.target {
        Target::Classes(classes) => Task::Classes(classes),
        Target::Number => Task::Number,
    };
    let features = resolved.features.into_iter().map(declared).collect();
    let derivation = Derivation::of(spec);
    Ok(Declaration { label: resolved.label, task, features, validation: resolved.validation, derivation })
}

impl Task {
    /// `binary`, `multiclass` or `regression`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Classes(classes) if classes.len() > 2 => "multiclass",
            Self::Classes(_) => "binary",
            Self::Number => "regression",
        }
    }
}

fn declared(feature: ResolvedFeature) -> Declared {
    let encode = match feature.encode {
        ResolvedEncode::Number => Encode::Number,
        // The limit itself is the plain form, so that writing it out changes no recipe.
        ResolvedEncode::Category(most) if usize::from(most) == MAX_LEVELS => Encode::Category,
        ResolvedEncode::Category(most) => Encode::Categories(most),
        ResolvedEncode::Time(parts) => Encode::Time(parts.into_iter().map(part).collect()),
    };
    Declared { column: feature.column, encode }
}

fn part(part: Part) -> TimePart {
    match part {
        Part::Year => TimePart::Year,
        Part::Month => TimePart::Month,
        Part::Day => TimePart::Day,
        Part::Weekday => TimePart::Weekday,
        Part::Hour => TimePart::Hour,
        Part::Minute => TimePart::Minute,
        Part::EpochDay => TimePart::EpochDay,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLIGHTS: &str = include_str!("../../examples/flights/model.yaml");
    const CHURN: &str = include_str!("../domain/contract/example.yaml");

    fn of(text: &str) -> Declaration {
        declaration(&Spec::parse_yaml(text, "model.yaml").unwrap()).unwrap()
    }

    fn names(declaration: &Declaration) -> Vec<&str> {
        declaration.features.iter().map(|feature| feature.column.as_str()).collect()
    }

    #[test]
    fn without_a_section_the_columns_say_what_is_learned_and_no_text_that_may_be_free_or_personal_is() {
        let flights = of(FLIGHTS);
        assert_eq!(flights.task, Task::Classes(vec!["0".into(), "1".into()]));
        let expected = "event_time carrier flight origin dest distance month weekday hour sched_dep_time sched_arr_time temp \
                        wind_speed precip visib plane_year seats";
        assert_eq!(names(&flights).join(" "), expected);
        let churn = of(CHURN);
        assert_eq!(churn.task, Task::Classes(vec!["false".into(), "true".into()]));
        assert_eq!(names(&churn), ["event_time", "age", "balance", "plan", "country"]);
        let parts = vec![TimePart::Month, TimePart::Weekday, TimePart::Hour, TimePart::Minute];
        assert_eq!(churn.features[0].encode, Encode::Time(parts));
        assert_eq!(churn.features[3].encode, Encode::Category);
    }

    #[test]
    fn what_the_section_says_takes_the_place_of_what_would_be_derived_and_the_order_stays_that_of_the_columns() {
        let section = "label: churned\nlearning:\n  features:\n    - {column: plan, encode: category, categories: 2}\n    \
                       - {column: age, encode: category}\n    - {column: event_time, encode: time, parts: [epochDay, hour]}\n";
        let with = |rest: &str| of(&CHURN.replacen("label: churned\n", &format!("{section}{rest}"), 1));
        let derived = with("  leaveOut: [balance]\n");
        assert_eq!(names(&derived), ["event_time", "age", "plan", "country"]);
        assert_eq!(derived.features[0].encode, Encode::Time(vec![TimePart::EpochDay, TimePart::Hour]));
        assert_eq!(derived.features[1].encode, Encode::Category);
        assert_eq!(derived.features[2].encode, Encode::Categories(2));
        assert_eq!(names(&with("  others: leaveOut\n")), ["event_time", "age", "plan"]);
    }

    #[test]
    fn the_label_says_the_task_and_an_integer_can_be_either() {
        let label = |kind: &str| {
            CHURN.replacen(
                "logicalType: boolean\n        reference: {minority: 0.27}",
                &format!("logicalType: {kind}"),
                1,
            )
        };
        let task = |text: &str| of(text).task;
        assert_eq!(task(&label("number")).name(), "regression");
        let stars = label("integer\n        logicalTypeOptions: {minimum: 9, maximum: 11}");
        assert_eq!(task(&stars), Task::Classes(vec!["9".into(), "10".into(), "11".into()]));
        assert_eq!(task(&stars).name(), "multiclass");
        let number = stars.replacen("label: churned\n", "label: churned\nlearning: {task: regression}\n", 1);
        assert_eq!(task(&number), Task::Number);
        let words = label("string\n        logicalTypeOptions: {enum: [no, maybe, gone]}");
        assert_eq!(task(&words), Task::Classes(vec!["gone".into(), "maybe".into(), "no".into()]));
    }

    #[test]
    fn a_contract_that_nothing_can_be_learned_under_says_why() {
        let error = |text: &str| declaration(&Spec::parse_yaml(text, "f").unwrap()).unwrap_err();
        let plain = CHURN.replacen("label: churned\n", "", 1).replacen("\n        reference: {minority: 0.27}", "", 1);
        assert_eq!(error(&plain).path, "label");
        let many = "logicalType: integer\n        logicalTypeOptions: {minimum: 0, maximum: 256}";
        let many = CHURN.replacen("logicalType: boolean\n        reference: {minority: 0.27}", many, 1);
        let many = error(&many);
        assert!(many.problem.contains("more than 256 classes") && many.help.contains("task: regression"), "{many}");
    }
}
