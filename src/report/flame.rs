//! Flame graphs: stacks that were seen, as one picture. The width of a frame is how often it was seen, with all that it called
//! above it (Gregg, "The Flame Graph", 2016).

use std::collections::BTreeMap;

use super::markup::Markup;

const WIDTH: f64 = 1_200.0;
const LINE: f64 = 17.0;
const TOP: f64 = 40.0;
/// Frames of less than this share of the whole are left out.
const LEAST: f64 = 0.000_5;
/// Deepest frame that is drawn.
const DEEPEST: usize = 200;

const STYLE: &str = "
svg { color-scheme: light dark; background: #ffffff; }
text { font: 11px ui-monospace, monospace; fill: #1b1f24; } .title { font: 600 15px system-ui, sans-serif; }
rect { stroke: #ffffff; stroke-width: .5; } rect:hover { stroke: #000000; }
.c0 { fill: #ffd8a8; } .c1 { fill: #ffc078; } .c2 { fill: #ffec99; } .c3 { fill: #ffe066; } .c4 { fill: #fcc2d7; } .c5 { fill: #ffc9c9; }
@media (prefers-color-scheme: dark) {
  svg { background: #0d1117; } .title { fill: #e6edf3; } rect { stroke: #0d1117; } rect:hover { stroke: #ffffff; } .count { fill: #9ea7b3; }
}
";

/// A stack without the frames of the system's and the library's thread starts, which every one begins with.
#[must_use]
pub fn without_beginning(frames: Vec<String>) -> Vec<String> {
    // What the library puts beneath a thread's own code, so that backtraces may begin there.
    let last = frames.iter().rposition(|frame| frame.contains("__rust_begin_short_backtrace"));
    let own = last.map_or(0, |last| last + 1);
    if own < frames.len() { frames.into_iter().skip(own).collect() } else { frames }
}

#[derive(Default)]
struct Frame {
    seen: u64,
    above: BTreeMap<String, Frame>,
}

/// The picture of stacks, outermost frame first, with how often each was seen: an SVG that stands alone, without a script. The name of a
/// frame that is too narrow for it is told when one points at it.
#[must_use]
pub fn graph(title: &str, stacks: &BTreeMap<Vec<String>, u64>) -> String {
    let mut root = Frame::default();
    for (stack, seen) in stacks {
        root.seen += seen;
        let mut at = &mut root;
        for name in stack.iter().take(DEEPEST) {
            at = at.above.entry(name.clone()).or_default();
            at.seen += seen;
        }
    }
    let height = TOP + LINE * (depth(&root) + 1) as f64 + 10.0;
    let mut out = Markup::new();
    out.raw("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 ")
        .place(WIDTH)
        .raw(" ")
        .place(height)
        .raw("\">\n<title>");
    out.text(title)
        .raw("</title>\n<style>")
        .raw(STYLE)
        .raw("</style>\n<text class=\"title\" x=\"10\" y=\"24\">")
        .text(title);
    out.raw("</text>\n<text class=\"count\" text-anchor=\"end\" x=\"").place(WIDTH - 10.0).raw("\" y=\"24\">");
    out.text(format_args!("{} samples of time on the processor", root.seen)).raw("</text>\n");
    let bottom = height - 10.0;
    draw(&mut out, &root, root.seen.max(1), (0.0, bottom));
    out.raw("</svg>\n");
    out.as_str().to_owned()
}

fn depth(frame: &Frame) -> usize {
    frame.above.values().map(|above| 1 + depth(above)).max().unwrap_or(0)
}

/// Draws what lies above a frame whose left edge and upper edge are given.
fn draw(out: &mut Markup, frame: &Frame, whole: u64, (mut x, floor): (f64, f64)) {
    for (name, above) in &frame.above {
        let share = above.seen as f64 / whole as f64;
        let width = share * WIDTH;
        if share >= LEAST {
            let y = floor - LINE;
            out.raw("<g><title>").text(name);
            out.text(format_args!(": {} samples, {:.1} %", above.seen, share * 100.0)).raw("</title><rect class=\"");
            out.raw(colour(name)).raw("\" x=\"").place(x).raw("\" y=\"").place(y).raw("\" width=\"").place(width);
            out.raw("\" height=\"").place(LINE - 1.0).raw("\"/>");
            let room = (width / 6.7) as usize;
            if room > 3 {
                let mut shown: String = name.chars().take(room - 1).collect();
                if shown.len() < name.len() {
                    shown.push('…');
                }
                out.raw("<text x=\"")
                    .place(x + 3.0)
                    .raw("\" y=\"")
                    .place(y + 12.0)
                    .raw("\">")
                    .text(shown)
                    .raw("</text>");
            }
            out.raw("</g>\n");
            draw(out, above, whole, (x, y));
        }
        x += width;
    }
}

/// The same name has the same colour everywhere.
fn colour(name: &str) -> &'static str {
    let sum = name.bytes().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
    ["c0", "c1", "c2", "c3", "c4", "c5"][(sum % 6) as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn frames_are_as_wide_as_they_were_seen_and_stand_on_what_called_them() {
        let stacks = BTreeMap::from([
            (stack(&["learn", "grow"]), 3),
            (stack(&["learn"]), 1),
            (stack(&["score", "<T as Trait<'a>>::f"]), 4),
        ]);
        let graph = graph("training r", &stacks);
        assert!(graph.contains("<title>learn: 4 samples, 50.0 %</title>"), "{graph}");
        assert!(graph.contains("x=\"0.00\" y=\"74.00\" width=\"600.00\""), "{graph}");
        assert!(
            graph.contains("<title>grow: 3 samples, 37.5 %</title>")
                && graph.contains("x=\"600.00\" y=\"57.00\" width=\"600.00\""),
            "{graph}"
        );
        assert!(graph.contains("&lt;T as Trait&lt;&#39;a&gt;&gt;::f") && graph.contains("8 samples"));
        assert!(super::graph("nothing", &BTreeMap::new()).ends_with("</svg>\n"));
    }

    #[test]
    fn what_every_thread_begins_with_is_left_out() {
        let begin = "std::sys::backtrace::__rust_begin_short_backtrace<F>";
        assert_eq!(without_beginning(stack(&["start_thread", begin, "learn", "grow"])), stack(&["learn", "grow"]));
        assert_eq!(without_beginning(stack(&["a", "b"])), stack(&["a", "b"]));
    }
}
