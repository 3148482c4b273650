//! `hokusai topology`: show topics and stages, and make the topics.

use clap::{Args, Subcommand, ValueEnum};

use super::common::Settings;
use super::exit::{Failure, Outcome, say};
use crate::topology::apply;

const EXAMPLES: &str = "\
Examples:
  hokusai topology                           topics and stages as a table
  hokusai topology --as mermaid              the picture, for Markdown
  hokusai topology apply --dry-run           what would be made or altered
  hokusai topology apply --brokers kafka:9092 --partitions cluster --replication 3";

/// How the topology is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shape {
    /// Tables of topics and stages.
    Table,
    /// A Mermaid flowchart.
    Mermaid,
}

/// Arguments of `topology`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct TopologyArgs {
    /// Table or Mermaid
    #[arg(long = "as", default_value = "table", value_name = "SHAPE")]
    shape: Shape,
    #[command(subcommand)]
    action: Option<TopologyAction>,
}

#[derive(Debug, Subcommand)]
enum TopologyAction {
    /// Create and alter the topics on the brokers; safe to repeat
    Apply {
        /// Replication factor of new topics
        #[arg(long, default_value_t = 1, value_name = "N")]
        replication: i32,
        /// Say what would be done, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
}

/// Runs `topology`.
///
/// # Errors
/// No broker, or a change that the topology refuses.
pub async fn run(args: TopologyArgs, settings: Settings) -> Outcome<()> {
    match args.action {
        None => show(args.shape, &settings),
        Some(TopologyAction::Apply { replication, dry_run }) => {
            let report = apply_to(&settings, replication, dry_run).await?;
            for line in report {
                say(line)?;
            }
            Ok(())
        }
    }
}

fn show(shape: Shape, settings: &Settings) -> Outcome<()> {
    if settings.json() {
        return say(settings.topology.to_json());
    }
    let text = match shape {
        Shape::Table => settings.topology.render_table(),
        Shape::Mermaid => settings.topology.render_mermaid(),
    };
    say(text.trim_end())
}

/// Makes and alters the topics; returns one line per action.
///
/// # Errors
/// No broker, or a change that the topology refuses.
pub async fn apply_to(settings: &Settings, replication: i32, dry_run: bool) -> Outcome<Vec<String>> {
    let options = apply::ApplyOptions { prefix: settings.prefix.clone(), replication, dry_run };
    match apply::apply(&settings.topology, &settings.client(), &options).await {
        Ok(actions) if settings.json() => Ok(actions.iter().map(|a| a.to_json().to_string()).collect()),
        Ok(actions) => Ok(actions.iter().map(ToString::to_string).collect()),
        Err(error) if error.no_broker() => Err(settings.no_broker(error)),
        Err(error) => Err(Failure::failed(error)),
    }
}

/// Makes and alters the topics before stages run on them. A topic that was altered so that it cannot be as declared is told and left as it
/// is: the stages that it concerns stop by name, the others go on.
///
/// # Errors
/// No broker, or a broker that refuses an action.
pub async fn apply_the_rest(settings: &Settings) -> Outcome<()> {
    let options = apply::ApplyOptions { prefix: settings.prefix.clone(), replication: 1, dry_run: false };
    match apply::apply_the_rest(&settings.topology, &settings.client(), &options).await {
        Ok(refused) => {
            refused.iter().for_each(|refusal| tracing::error!("{refusal}"));
            Ok(())
        }
        Err(error) if error.no_broker() => Err(settings.no_broker(error)),
        Err(error) => Err(Failure::failed(error)),
    }
}
