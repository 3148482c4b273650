//! Pages in a real browser: Chromium without a window.

use std::path::Path;
use std::process::Command;

/// What Chromium's log says of a page's console; none when there is no Chromium.
pub fn console(page: &Path) -> Option<Vec<String>> {
    let names = ["chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"];
    let profile = tempfile::tempdir().expect("a folder");
    let page = format!("file://{}", page.display());
    let output = names.iter().find_map(|name| {
        Command::new(name)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(&page)
            .output()
            .ok()
    })?;
    let (dom, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(
        output.status.success() && (dom.contains("</main>") || dom.contains("</svg>")),
        "{page} was not shown:\n{dom}\n{log}"
    );
    Some(log.lines().filter(|line| line.contains(":CONSOLE")).map(str::to_owned).collect())
}
