use super::*;
use proptest::prelude::*;
use roxmltree::{Document, Node};
use std::collections::HashSet;

/// A page with every kind of block, each of its texts made by `text` from what it would say.
fn sample(text: impl Fn(&str) -> String) -> Page {
    let plot = "<svg viewBox=\"0 0 2 1\" role=\"img\" aria-label=\"rising\"><path d=\"M0 1L2 0\"/></svg>";
    let figure = Figure {
        title: text("Time over batch"),
        summary: text("It rises."),
        svg: plot.into(),
        header: vec![text("batch"), text("ms")],
        rows: vec![vec![text("one"), text("two")]],
    };
    let marked =
        [Mark::None, Mark::Good, Mark::Bad, Mark::Muted].map(|mark| Cell::number(text("3.4")).mark(mark));
    let table = Table {
        caption: text("Runs"),
        header: vec![text("run"), text("ms")],
        rows: vec![vec![Cell::text(text("dense")), Cell::number(text("1.5"))], marked.to_vec(), vec![]],
        left_out: 2,
    };
    let words = vec![
        Block::Answer(vec![text("Routing pays.")]),
        Block::Text(text("Each row is a run.")),
        Block::Facts(vec![(text("seed"), text("7"))]),
        Block::Code(text("radialsim run")),
    ];
    let numbers = vec![
        Block::Table(table.clone()),
        Block::Table(table),
        Block::Figure(figure.clone()),
        Block::Figure(figure),
    ];
    Page {
        title: text("A report"),
        lead: text("Does it pay?"),
        sections: vec![
            Section { title: text("Answer"), blocks: words },
            Section { title: text("Numbers"), blocks: numbers },
        ],
    }
}

/// The page as a tree. `meta` is its only element that XML would want closed.
fn parsed<T>(html: &str, check: impl FnOnce(Document) -> T) -> T {
    let body = html.strip_prefix("<!DOCTYPE html>").expect("a doctype");
    let closed: Vec<String> = body
        .split_inclusive('>')
        .map(|tag| if tag.starts_with("<meta ") { tag.replace('>', "/>") } else { tag.to_owned() })
        .collect();
    let closed = closed.concat();
    check(Document::parse(&closed).unwrap_or_else(|error| panic!("{error}: {closed}")))
}

/// Elements with their attributes' names, in order: all of the page but its texts. The note of a cut text is a text.
fn skeleton(page: &Page) -> Vec<String> {
    let bones = |node: Node| {
        let names: Vec<&str> = node.attributes().map(|attribute| attribute.name()).collect();
        format!("{}{} {}", " ".repeat(node.ancestors().count()), node.tag_name().name(), names.join(" "))
    };
    parsed(&page.html(), |document| {
        let elements = document.descendants().filter(|node| node.is_element() && !node.has_tag_name("em"));
        elements.map(bones).collect()
    })
}

fn named<'a>(document: &'a Document<'a>, name: &'a str) -> impl Iterator<Item = Node<'a, 'a>> {
    document.descendants().filter(move |node| node.has_tag_name(name))
}

const HOSTILE: [&str; 6] = [
    "<script>alert(1)</script>",
    "</style></title></bdi></table><img src=x onerror=alert(1)>",
    "\" onfocus=alert(1) autofocus ' &quot; &lt;b&gt; &#0; & <!-- ]]> <![CDATA[",
    "\0\u{1}\u{7f}\u{85}\r\n\t\u{2028}\u{feff}",
    "\u{202e}evil\u{2066}\u{200f} \u{5d0}\u{5d1}",
    "",
];

#[test]
fn a_text_is_never_markup() {
    let tame = skeleton(&sample(str::to_owned));
    let long = ["<script>".repeat(140_000), "x".repeat(1 << 20), "\u{202e}\n".repeat(500_000)];
    for text in HOSTILE.into_iter().map(str::to_owned).chain(long) {
        for page in [sample(|_| text.clone()), sample(|tame| format!("{tame}{text}"))] {
            assert_eq!(skeleton(&page), tame, "{:.80}", text);
            let html = page.html();
            assert_eq!(html.matches("<script").count(), 0);
            assert!(html.len() < 600_000, "{} bytes", html.len());
            let hidden = |c: char| {
                (c.is_control() && c != '\n')
                    || matches!(c, '\u{202e}' | '\u{2066}' | '\u{200f}' | '\u{feff}')
            };
            assert!(!html.contains(hidden));
        }
    }
}

/// Plots are the one thing that is not escaped, so one with a script in it shows that the skeleton sees scripts.
#[test]
fn the_skeleton_would_show_markup() {
    let mut page = sample(str::to_owned);
    let Some(Block::Figure(figure)) = page.sections[1].blocks.last_mut() else { panic!("a figure") };
    figure.svg = figure.svg.replace("<path", "<script/><path");
    assert_ne!(skeleton(&page), skeleton(&sample(str::to_owned)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_text_whatever_is_markup(text in "\\PC*|[<>&\"'/!\\-=a-z \\x00-\\x1f]*") {
        prop_assert_eq!(skeleton(&sample(|_| text.clone())), skeleton(&sample(|_| "tame".into())));
    }
}

#[test]
fn the_same_page_is_the_same_bytes() {
    assert_eq!(sample(str::to_owned).html(), sample(str::to_owned).html());
}

#[test]
fn a_browser_may_load_and_run_nothing() {
    parsed(&sample(str::to_owned).html(), |document| {
        let policy = named(&document, "meta")
            .find(|meta| meta.attribute("http-equiv") == Some("Content-Security-Policy"))
            .and_then(|meta| meta.attribute("content"));
        assert_eq!(policy, Some("default-src 'none'; style-src 'unsafe-inline'"));
        for node in document.descendants() {
            for attribute in node.attributes() {
                let name = attribute.name();
                assert!(!name.starts_with("on") && name != "src", "{name}");
                assert!(name != "href" || attribute.value().starts_with('#'), "{}", attribute.value());
            }
        }
    });
    let style = include_str!("style.css");
    for refused in ["</style", "<", "&", "@import", "url("] {
        assert!(!style.contains(refused), "{refused}");
    }
}

#[test]
fn headings_and_names_are_where_readers_look() {
    parsed(&sample(str::to_owned).html(), |document| {
        let headings: Vec<&str> = document
            .descendants()
            .map(|node| node.tag_name().name())
            .filter(|name| matches!(*name, "h1" | "h2" | "h3" | "h4"))
            .collect();
        assert_eq!(headings, ["h1", "h2", "h2"]);
        let first =
            |node: Node, name: &str| node.first_element_child().is_some_and(|child| child.has_tag_name(name));
        assert_eq!(named(&document, "figure").filter(|figure| first(*figure, "figcaption")).count(), 2);
        assert_eq!(named(&document, "table").count(), 4);
        assert!(named(&document, "table").all(|table| first(table, "caption")));
        assert!(named(&document, "th").all(|th| matches!(th.attribute("scope"), Some("col" | "row"))));
        assert!(named(&document, "svg").all(|svg| svg.attribute("role") == Some("img")));
    });
}

#[test]
fn ids_are_unique_and_every_reference_leads_somewhere() {
    parsed(&sample(str::to_owned).html(), |document| {
        let mut ids = HashSet::new();
        for id in document.descendants().filter_map(|node| node.attribute("id")) {
            assert!(ids.insert(id), "{id} twice");
        }
        for node in document.descendants() {
            let link = node.attribute("href").and_then(|href| href.strip_prefix('#'));
            for target in link.into_iter().chain(node.attribute("aria-labelledby")) {
                assert!(ids.contains(target), "{target}");
            }
            if node.attribute("role") == Some("region") {
                assert_eq!(node.attribute("tabindex"), Some("0"));
                assert!(node.has_attribute("aria-label") || node.has_attribute("aria-labelledby"));
            }
        }
    });
}

#[test]
fn what_is_not_shown_is_counted() {
    let table = |left_out| Page {
        sections: vec![Section {
            title: "s".into(),
            blocks: vec![Block::Table(Table { left_out, ..Table::default() })],
        }],
        ..Page::default()
    };
    assert!(!table(0).html().contains("not shown"));
    assert!(table(1).html().contains("1 more row is not shown."));
    assert!(table(12).html().contains("12 more rows are not shown."));
    let lead = |length| Page { lead: "é".repeat(length), ..Page::default() }.html();
    assert!(!lead(2000).contains("more characters"));
    assert!(
        lead(2345).contains(&format!("{}</bdi><em class=\"note\"> … 345 more characters", "é".repeat(2000)))
    );
}

#[test]
fn only_code_has_lines() {
    let html = sample(|tame| format!("{tame}\nnext")).html();
    assert!(html.contains("<code><bdi>radialsim run\nnext</bdi></code>"));
    assert!(html.contains("Each row is a run.\\nnext"));
}

#[test]
fn a_mark_is_a_sign_and_a_word() {
    let html = sample(str::to_owned).html();
    for seen in ["✓ ", "good: ", "✗ ", "bad: ", "minor: "] {
        assert_eq!(html.matches(&format!("{seen}</span>")).count(), 2, "{seen}");
    }
}

#[test]
fn nothing_at_all_is_a_page_too() {
    let html = Page::default().html();
    parsed(&html, |document| assert_eq!(named(&document, "h1").count(), 1));
    assert!(!html.contains("<nav"), "no list of no sections");
}
