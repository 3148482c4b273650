//! Scores as CSV or JSON lines. A number is written with the digits that read back as the same bits.

use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::cli::atomic::Atomic;
use crate::cli::exit::{Failure, Outcome};
use crate::ml::Task;

enum To {
    Out(std::io::Stdout),
    File(PathBuf, Atomic),
}

/// Where scores go.
pub(super) struct Output {
    to: To,
    /// Of JSON: what stands before each score of a row.
    keys: Option<Vec<String>>,
    outputs: usize,
}

impl Output {
    /// Opens it; CSV begins with its header.
    ///
    /// # Errors
    /// The file cannot be made, or nobody reads any more.
    pub(super) fn open(file: Option<&Path>, task: &Task, json: bool) -> Outcome<Self> {
        let to = match file {
            None => To::Out(std::io::stdout()),
            Some(path) => {
                let file = Atomic::create(path).map_err(|e| Failure::because(format!("{}: {e}", path.display())))?;
                To::File(path.to_owned(), file)
            }
        };
        let mut output = Self { to, keys: json.then(|| keys(task)).transpose()?, outputs: task.outputs() };
        if !json {
            output.put(header(task).as_bytes())?;
        }
        Ok(output)
    }

    /// Writes the scores of some rows, row-major.
    ///
    /// # Errors
    /// As [`Output::open`].
    pub(super) fn write(&mut self, scores: &[f64]) -> Outcome<()> {
        let mut text = String::with_capacity(1 << 16);
        for row in scores.chunks(self.outputs.max(1)) {
            self.row(row, &mut text);
            if text.len() >= 1 << 15 {
                self.put(text.as_bytes())?;
                text.clear();
            }
        }
        self.put(text.as_bytes())
    }

    fn row(&self, scores: &[f64], text: &mut String) {
        for (i, score) in scores.iter().enumerate() {
            // Writing to a text cannot fail.
            let _ = match &self.keys {
                None if i == 0 => write!(text, "{score}"),
                None => write!(text, ",{score}"),
                Some(keys) => {
                    let key = keys.get(i).map_or("", String::as_str);
                    if score.is_finite() { write!(text, "{key}{score}") } else { write!(text, "{key}null") }
                }
            };
        }
        text.push_str(match &self.keys {
            None => "\n",
            Some(_) if self.outputs > 1 => "}}\n",
            Some(_) => "}\n",
        });
    }

    /// Ends it: a file takes its name now.
    ///
    /// # Errors
    /// As [`Output::open`].
    pub(super) fn finish(self) -> Outcome<()> {
        match self.to {
            To::Out(mut out) => closed(out.flush()),
            To::File(path, file) => file.finish().map_err(|e| Failure::because(format!("{}: {e}", path.display()))),
        }
    }

    fn put(&mut self, bytes: &[u8]) -> Outcome<()> {
        match &mut self.to {
            To::Out(out) => closed(out.write_all(bytes)),
            To::File(path, file) => {
                file.write_all(bytes).map_err(|e| Failure::because(format!("{}: {e}", path.display())))
            }
        }
    }
}

fn closed(written: std::io::Result<()>) -> Outcome<()> {
    match written {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Err(Failure::OutputClosed),
        other => Ok(other?),
    }
}

/// `score`, or one column per class.
fn header(task: &Task) -> String {
    let names = match task {
        Task::Classes(classes) if classes.len() > 2 => classes.as_slice(),
        _ => return "score\n".to_owned(),
    };
    let quoted = |name: &String| {
        let plain = !name.contains([',', '"', '\n', '\r']);
        if plain { format!("score.{name}") } else { format!("\"score.{}\"", name.replace('"', "\"\"")) }
    };
    names.iter().map(quoted).collect::<Vec<_>>().join(",") + "\n"
}

/// `{"score":`, or `{"scores":{"CLASS":` and `,"CLASS":`.
fn keys(task: &Task) -> Outcome<Vec<String>> {
    let names = match task {
        Task::Classes(classes) if classes.len() > 2 => classes.as_slice(),
        _ => return Ok(vec!["{\"score\":".to_owned()]),
    };
    let mut keys = Vec::with_capacity(names.len());
    for name in names {
        let name = serde_json::to_string(name).map_err(Failure::failed)?;
        keys.push(if keys.is_empty() { format!("{{\"scores\":{{{name}:") } else { format!(",{name}:") });
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(classes: &[&str], json: bool, scores: &[f64]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scores");
        let task = match classes {
            [] => Task::Number,
            classes => Task::Classes(classes.iter().map(ToString::to_string).collect()),
        };
        let mut output = Output::open(Some(&path), &task, json).unwrap();
        output.write(scores).unwrap();
        output.finish().unwrap();
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn one_score_or_one_per_class_stands_on_each_line_with_the_digits_that_read_back_as_the_same_bits() {
        assert_eq!(written(&["no", "yes"], false, &[0.1 + 0.2, 1e-7]), "score\n0.30000000000000004\n0.0000001\n");
        assert_eq!(written(&[], true, &[-2.5, f64::NAN]), "{\"score\":-2.5}\n{\"score\":null}\n");
        let three = ["a", "b,\"c\"", "d"];
        assert_eq!(
            written(&three, false, &[0.5, 0.25, 0.25]),
            "score.a,\"score.b,\"\"c\"\"\",score.d\n0.5,0.25,0.25\n"
        );
        let json = written(&three, true, &[0.5, 0.25, 0.25, 1.0, 0.0, 0.0]);
        let lines: Vec<serde_json::Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let score = |line: usize, class: &str| lines[line]["scores"][class].as_f64();
        assert_eq!((score(0, "b,\"c\""), score(1, "a")), (Some(0.25), Some(1.0)), "{json}");
    }
}
