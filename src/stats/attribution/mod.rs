//! Who contributed what to an accepted improvement: players are contributors, a coalition's utility is the metric of the model
//! trained on the base rows and the coalition's rows.
//!
//! The game is declared: recipe, rows per player, benchmark subsample, seed. Utilities are integers over one denominator, so the
//! players' values add up to v(all) − v(nobody) as integers; nothing is ever rescaled. What of the published delta lies
//! outside the game is nobody's and is published as such.
//!
//! * [`screening`]: many contributors become at most sixteen players (KNN-Shapley, Banzhaf ranking);
//! * [`game`]: which coalitions are to be trained, and Shapley values of their utilities, enumerated or sampled;
//! * [`utility`]: what a coalition's model is worth, as an integer, and each benchmark row's part of it;
//! * [`uncertainty`]: variance of these values, from sampling, from the benchmark's rows, from seeds;
//! * [`shares`]: basis points, or the reasons why nobody is paid.

pub mod game;
pub mod screening;
pub mod shares;
pub mod uncertainty;
pub mod utility;

#[cfg(test)]
mod tests;
