//! Reports as a browser sees them: nothing sticks out, everything can be read, nothing runs and nothing is loaded.

use radialsim::page::{Block, Cell, Figure, Mark, Page, Section, Table};
use std::collections::HashMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const TITLE: &str = "Exit \"early\" & <script>alert(1)</script>";
const PATIENCE: Duration = Duration::from_secs(120);

const PLOT: &str = r#"<svg viewBox="0 0 800 300" role="img" aria-label="rising">
<path d="M0 300L800 0" stroke="var(--s1)"/><text x="9" y="20">ms</text></svg>"#;

/// Measures the page that it is part of and leaves the numbers at the outermost page as `data-probe="name=1 ..."`.
const PROBE: &str = include_str!("page_probe.js");

/// A page with every kind of block, wide things and hostile names.
fn rich() -> Page {
    let name = ["dense", "<img src=x onerror=alert(1)>", "\u{5d0}\u{5d1} \u{202e}evil", &"w".repeat(500)];
    let row = |name: &&str| {
        let numbers = (1..12).map(|at| Cell::number(format!("{at} 234.5")));
        let marks = [Mark::Good, Mark::Bad, Mark::Muted].map(|mark| Cell::text("so").mark(mark));
        [Cell::text(*name)].into_iter().chain(numbers).chain(marks).collect()
    };
    let table = Table {
        caption: "Runs beside each other ".repeat(3),
        header: (0..15).map(|at| format!("column {at}")).collect(),
        rows: name.iter().map(row).collect(),
        left_out: 3,
    };
    let figure = Figure {
        title: name[3].into(),
        summary: "It rises. ".repeat(30),
        svg: PLOT.into(),
        header: vec!["batch".into(), "ms".into()],
        rows: vec![vec![name[1].into(), "1.5".into()]],
    };
    let facts = name.iter().map(|name| (name.to_string(), name.repeat(9))).collect();
    let section = |title: &str, blocks| Section { title: title.into(), blocks };
    Page {
        title: TITLE.into(),
        lead: "What does it cost? ".repeat(9),
        sections: vec![
            section(
                "Answer",
                vec![Block::Answer(name.map(str::to_owned).into()), Block::Text(name.concat())],
            ),
            section(name[1], vec![Block::Table(table), Block::Figure(figure)]),
            section(name[3], vec![Block::Facts(facts), Block::Code("radialsim run ".repeat(30))]),
        ],
    }
}

/// The page with every kind of block, ready to be measured.
fn probed(style: &str) -> String {
    with_probe(&rich().html(), style)
}

/// A page with the policy off and the probe in; `style` comes last and so wins.
pub(crate) fn with_probe(html: &str, style: &str) -> String {
    let html = html.replace("http-equiv=\"Content-Security-Policy\"", "name=\"off\"");
    let html = html.replace("</head>", &format!("<style>{style}</style></head>"));
    html.replace("</body>", &format!("<script>{PROBE}</script></body>"))
}

/// The program, unless this machine has none: then the test is skipped, or fails where a browser is demanded.
fn chromium() -> Option<PathBuf> {
    let named = std::env::var_os("CHROMIUM").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = named.or_else(|| {
        std::env::split_paths(&path).map(|folder| folder.join("chromium")).find(|file| file.is_file())
    });
    if found.is_none() {
        assert!(
            std::env::var_os("RADIALSIM_REQUIRE_CHROMIUM").is_none(),
            "no chromium on PATH nor in CHROMIUM"
        );
        eprintln!("SKIPPED: no chromium on PATH nor in CHROMIUM");
    }
    found
}

/// The document that the browser makes of `html` in a window 1280 wide, written out again; nothing where there is no browser.
pub(crate) fn dumped(html: &str, dark: bool) -> Option<String> {
    let program = chromium()?;
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    fs::write(at("page.html"), html).expect("a page");
    let mut browser = Command::new(program)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--disable-dev-shm-usage", "--virtual-time-budget=2000", "--window-size=1280,900"])
        .arg(format!("--blink-settings=preferredColorScheme={}", if dark { 0 } else { 1 }))
        .arg(format!("--user-data-dir={}", at("profile").display()))
        .arg("--dump-dom")
        .arg(format!("file://{}", at("page.html").display()))
        .stdin(Stdio::null())
        .stdout(File::create(at("dom")).expect("a file"))
        .stderr(Stdio::null())
        .spawn()
        .expect("a browser");
    let start = Instant::now();
    while browser.try_wait().expect("a process").is_none() {
        if start.elapsed() > PATIENCE {
            browser.kill().expect("an end");
            panic!("the browser did not end in {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Some(String::from_utf8_lossy(&fs::read(at("dom")).expect("a document")).into_owned())
}

/// What the probe found.
pub(crate) fn measured(html: &str, dark: bool) -> Option<HashMap<String, f64>> {
    let dom = dumped(html, dark)?;
    let (_, rest) =
        dom.split_once("data-probe=\"").unwrap_or_else(|| panic!("no measurement in {dom:.3000}"));
    let (numbers, _) = rest.split_once('"').expect("the end of an attribute");
    let pair = |text: &str| {
        let (name, value) = text.split_once('=').expect("a pair");
        (name.to_owned(), value.parse().expect("a number"))
    };
    Some(numbers.split(' ').map(pair).collect())
}

/// A page around `html` that shows it as a telephone would; a window of a browser cannot be that narrow.
pub(crate) fn on_a_phone(html: &str) -> String {
    let html = html.replace('&', "&amp;").replace('"', "&quot;");
    format!(
        "<!DOCTYPE html><body><iframe width=390 height=844 style=\"border:0\" srcdoc=\"{html}\"></iframe>"
    )
}

#[track_caller]
pub(crate) fn assert_fit_to_read(found: &HashMap<String, f64>) {
    assert_eq!(found["overflow"], 0.0, "the page moves sideways: {found:?}");
    assert!(found["texts"] > 100.0 && found["text_contrast"] >= 7.0, "{found:?}");
    assert!(found["series_contrast"] >= 3.0, "{found:?}");
    assert!(found["skip_first"] == 1.0 && found["focus_ring"] >= 2.0, "{found:?}");
    assert_eq!((found["scripts"], found["loaded"]), (1.0, 0.0), "the probe alone: {found:?}");
    assert_eq!((found["mute"], found["h1"], found["jumps"]), (0.0, 1.0, 0.0), "{found:?}");
}

#[test]
fn a_phone_in_daylight_shows_it_all() {
    let Some(found) = measured(&on_a_phone(&probed("")), false) else { return };
    assert_eq!((found["width"], found["dark"]), (390.0, 0.0));
    assert!(found["scrolling"] >= 3.0, "table, plot and code move within themselves: {found:?}");
    assert_fit_to_read(&found);
}

#[test]
fn a_desk_at_night_shows_it_all() {
    let Some(found) = measured(&probed(""), true) else { return };
    assert_eq!((found["width"], found["dark"]), (1280.0, 1.0));
    assert_fit_to_read(&found);
}

#[test]
fn the_probe_sees_what_is_wrong() {
    let style = ".scroll, pre { overflow: visible !important } .lead { color: #999 } .skip { left: 0; transform: none } \
                 th { background: url(http://127.0.0.1:9/none.png) } :root { --s3: #eee }";
    let Some(found) = measured(&on_a_phone(&probed(style)), false) else { return };
    assert!(
        found["overflow"] > 0.0 && found["text_contrast"] < 7.0 && found["series_contrast"] < 3.0,
        "{found:?}"
    );
    assert!(found["skip_first"] == 0.0 && found["loaded"] > 0.0, "{found:?}");
}

#[test]
fn a_hostile_name_is_a_name() {
    let Some(dom) = dumped(&rich().html(), false) else { return };
    assert!(!dom.contains("<script") && !dom.contains("<img"), "{dom}");
    let title = TITLE.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    assert!(dom.contains(&format!("<title>{title}</title>")), "{dom:.3000}");
}
