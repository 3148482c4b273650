//! Progress of long work on standard error.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::common::Settings;

/// Template of work whose parts differ: the message says which it is at.
pub(super) const PARTS: &str = "{msg} {bar:40} {pos}/{len}, {elapsed}";

/// A bar of so many steps, or a spinner of unknown length, drawn by indicatif's `template`; hidden when output goes to a program.
pub(super) fn bar(settings: &Settings, length: Option<u64>, template: &str) -> ProgressBar {
    let target = if settings.json() { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(length, target);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}
