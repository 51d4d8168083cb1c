use super::scale::Span;
use super::*;

const HOSTILE: &str = "<script>alert(\"1\")</script> & 'x'\n\u{202e}\u{61c}\u{ffff}#0000FF=\"#010203\" ]]>";

fn axis(log: bool) -> ChartAxis {
    ChartAxis { label: "quantity (unit)".to_owned(), log }
}

fn point(x: f64, y: f64) -> Point {
    Point { x, y, low: y * 0.9, high: y * 1.1, unsure: x > 2.0 }
}

/// Every kind of chart from the same few names and values.
fn charts(names: &[&str], values: &[f64]) -> Vec<Chart> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let name = names.first().cloned().unwrap_or_default();
    let mut bodies = Vec::new();
    for (log, steps, corner) in [
        (false, false, None),
        (true, false, Some(Corner::LowerLeft)),
        (false, true, Some(Corner::UpperRight)),
        (true, true, Some(Corner::LowerRight)),
        (false, false, Some(Corner::UpperLeft)),
    ] {
        let points: Vec<Point> =
            values.iter().enumerate().map(|(at, value)| point(at as f64, *value)).collect();
        let swapped = points.iter().map(|point| Point { x: point.y, y: point.x, ..*point }).collect();
        let lines: Vec<Line> = names
            .iter()
            .flat_map(|name| {
                [&points, &swapped]
                    .map(|points: &Vec<Point>| Line { name: name.clone(), points: points.clone() })
            })
            .collect();
        let marks: Vec<_> = values.iter().map(|value| (*value, name.clone())).collect();
        let panels =
            names.iter().map(|name| Panel { name: name.clone(), lines: lines.clone(), marks: marks.clone() });
        bodies.push(Body::Lines(Lines { x: axis(log), y: axis(log), panels: panels.collect(), steps }));
        let pairs: Vec<(f64, f64)> = values.iter().flat_map(|a| values.iter().map(|b| (*a, *b))).collect();
        let groups = names.iter().map(|name| PointGroup {
            name: name.clone(),
            points: pairs.iter().map(|(x, y)| (*x, *y, name.clone())).collect(),
        });
        bodies.push(Body::Scatter(Scatter {
            x: axis(log),
            y: axis(log),
            groups: groups.collect(),
            front: pairs.clone(),
            unsure: pairs.iter().step_by(2).copied().collect(),
            corner,
        }));
        let spot = |(at, (x, y)): (usize, &(f64, f64))| Spot {
            name: names.get(at % names.len().max(1)).cloned().unwrap_or_default(),
            x: *x,
            y: *y,
            x_ends: [x * 0.9, x * 1.1],
            y_ends: [*y, *y],
            unsure: at % 2 == 0,
        };
        let panels = names.iter().map(|name| SpotPanel {
            name: name.clone(),
            spots: pairs.iter().enumerate().map(spot).collect(),
            lines: names.iter().map(|name| (name.clone(), pairs.clone())).collect(),
            front: pairs.clone(),
        });
        bodies.push(Body::Spots(Spots { x: axis(log), y: axis(log), panels: panels.collect(), corner }));
    }
    let bars = Bars { name: name.clone(), bars: values.iter().map(|value| (name.clone(), *value)).collect() };
    bodies.push(Body::Waterfall(Waterfall { unit: name.clone(), groups: vec![bars; names.len()] }));
    let rows =
        names.iter().enumerate().map(|(at, name)| (name.clone(), values[at.min(values.len())..].to_vec()));
    bodies.push(Body::HeatMap(HeatMap { x_label: name.clone(), unit: name.clone(), rows: rows.collect() }));
    let ends = [(0, 0), (0, 1), (1, 0), (2, 7), (usize::MAX, 0)];
    let edges = ends.iter().flat_map(|(a, b)| values.iter().map(|value| (*a, *b, *value))).collect();
    bodies.push(Body::Arcs(Arcs { nodes: names.clone(), edges }));
    let bars = values.iter().map(|value| (name.clone(), *value, -value / 3.0)).collect();
    let unit = name.clone();
    bodies.push(Body::Tornado(Tornado { unit, low_name: name.clone(), high_name: name.clone(), bars }));
    bodies.into_iter().map(|body| Chart { title: name.clone(), summary: name.clone(), body }).collect()
}

/// The texts of a picture, if it is well-formed and has what every picture must have.
fn check(svg: &str) -> Vec<String> {
    let tree = roxmltree::Document::parse(svg).unwrap_or_else(|error| panic!("{error}\n{svg}"));
    for node in tree.descendants().filter(|node| node.is_element()) {
        assert!(!["script", "image", "use", "a", "style"].contains(&node.tag_name().name()), "{svg}");
        for attribute in node.attributes().filter(|attribute| attribute.name() != "aria-label") {
            let value = attribute.value();
            assert!(!value.contains("NaN") && !value.contains("inf") && attribute.name() != "id", "{value}");
        }
    }
    tree.descendants().filter_map(|node| node.text()).map(|text| text.trim().to_owned()).collect()
}

#[test]
fn hostile_names_stay_text() {
    let long = "x".repeat(1 << 20);
    for chart in charts(&[HOSTILE, &long, "", "مرحبا 你好"], &[3.0, -1.0, 2.0, 5.0]) {
        for ink in [Ink::Page, Ink::Paper] {
            let svg = chart.svg(ink);
            check(&svg);
            assert!(!svg.contains("<script") && !svg.contains('\u{202e}') && svg.len() < 1 << 20);
        }
        let (head, rows) = chart.table();
        assert!(rows.iter().all(|row| row.len() == head.len()));
        assert!(rows.iter().flatten().chain(&head).all(|cell| cell.len() < 1000 && !cell.contains('\n')));
    }
}

#[test]
fn degenerate_data_make_pictures() {
    let odd = [
        0.0,
        -0.0,
        -1.0,
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::MAX,
        f64::MIN,
        5e-324,
        1e-320,
        1e299,
    ];
    let mut cases: Vec<Vec<f64>> =
        vec![vec![], vec![7.0], vec![7.0; 3], vec![1e15, 1e15 + 1.0], vec![-1e299, 1e299]];
    cases.push(odd.to_vec());
    cases.extend(odd.iter().map(|value| vec![*value]));
    cases.extend(odd.iter().map(|value| vec![1.0, *value, 2.0]));
    for values in cases {
        for names in [&[] as &[&str], &["one"], &["one", "two", "three"]] {
            for chart in charts(names, &values) {
                check(&chart.svg(Ink::Page));
                check(&chart.svg(Ink::Paper));
                chart.table();
            }
        }
    }
}

#[test]
fn too_much_is_left_out_and_said() {
    let names: Vec<String> = (0..200).map(|at| format!("name {at}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let values: Vec<f64> = (0..150).map(|at| f64::from(at % 7) + 1.0).collect();
    let said = |body: &Body, svg: &str| {
        let texts = check(svg);
        assert!(
            texts.iter().any(|text| text.contains("left out") || text.contains("smaller steps")),
            "{body:?}"
        );
    };
    for chart in charts(&names, &values[..4]).into_iter().chain(charts(&["one"], &values)) {
        let few = match &chart.body {
            Body::Lines(body) => body.panels.len() < 2,
            Body::Scatter(body) => body.groups.len() < 2,
            Body::Spots(body) => body.panels.len() < 2,
            Body::Arcs(body) => body.nodes.len() < 2,
            Body::HeatMap(body) => body.rows.len() < 2 && body.rows[0].1.len() < 129,
            Body::Tornado(body) => body.bars.len() < 21,
            Body::Waterfall(_) => false,
        };
        if !few {
            said(&chart.body, &chart.svg(Ink::Paper));
        }
    }
}

#[test]
fn a_page_has_no_colours_of_its_own() {
    for chart in charts(&["one", "two"], &[3.0, 1.0, -2.0]) {
        let (page, paper) = (chart.svg(Ink::Page), chart.svg(Ink::Paper));
        assert!(!page.contains('#') && page.contains("currentColor") && page.contains("var(--"), "{page}");
        assert!(
            !page.contains(" width=\"640")
                && page.contains("role=\"img\"")
                && page.contains("aria-label=\"one. one\"")
        );
        assert!(
            !paper.contains("var(") && !paper.contains("currentColor") && paper.contains("width=\"640\"")
        );
        assert_eq!(page, chart.svg(Ink::Page));
    }
}

#[test]
fn points_land_where_they_belong() {
    let linear = Span::of([0.0, 100.0], false).on(10.0, 210.0);
    assert_eq!([0.0, 25.0, 100.0, 400.0].map(|value| linear.at(value)), [10.0, 60.0, 210.0, 210.0]);
    let log = Span::of([1.0, 10_000.0, -3.0], true).on(300.0, 100.0);
    assert_eq!(
        [1.0, 10.0, 100.0, 10_000.0, 0.0].map(|value| log.at(value)),
        [300.0, 250.0, 200.0, 100.0, 300.0]
    );
}

#[test]
fn ticks_are_round() {
    let texts = |span: Span, most| span.ticks(most).into_iter().map(|(_, text)| text).collect::<Vec<_>>();
    assert_eq!(texts(Span::of([0.0, 0.4], false), 4), ["0", "0.1", "0.2", "0.3", "0.4"]);
    assert_eq!(texts(Span::of([-20_000.0, 20_000.0], false), 4), ["−20 k", "−10 k", "0", "10 k", "20 k"]);
    assert_eq!(texts(Span::of([1.0, 30.0], true), 8), ["1", "2", "5", "10", "20"]);
    assert_eq!(texts(Span::of([0.001, 1e6], true), 5), ["0.01", "1", "100", "10 k", "1 M"]);
    assert_eq!(texts(Span::of([0.0003, 0.0005], false), 2), ["3e−4", "4e−4", "5e−4"]);
}

#[test]
fn a_waterfall_adds_up() {
    let values = [50.0, -20.0, 5.0, f64::NAN, -40.0, -5.0];
    let bars: Vec<_> = values.iter().map(|value| (String::new(), *value)).collect();
    let (steps, missing) = Bars { name: String::new(), bars }.steps();
    let ends: Vec<_> = steps.iter().map(|bar| bar.ends).collect();
    let expected = [(0.0, 50.0), (50.0, 30.0), (30.0, 35.0), (f64::NAN, 0.0), (35.0, -5.0), (0.0, -5.0)];
    assert_eq!(ends, expected.map(|ends| (!ends.0.is_nan()).then_some(ends)));
    assert_eq!(missing, 0.0);

    // Of many steps the smallest become one, and the sum stays.
    let many = (0..60).map(|at| (String::new(), f64::from(at))).chain([(String::new(), 1770.0)]).collect();
    let (steps, missing) = Bars { name: String::new(), bars: many }.steps();
    assert_eq!((steps.len(), missing), (24, 0.0));
    for pair in steps.windows(2).filter(|pair| !pair[1].total) {
        assert_eq!(pair[1].ends.map(|ends| ends.0), pair[0].ends.map(|ends| ends.1));
    }
}

#[test]
fn tables_hold_the_data() {
    for chart in charts(&["one", "two"], &[1234.5678, 0.000_123_456]) {
        let (_, rows) = chart.table();
        let cells: Vec<&String> = rows.iter().flatten().collect();
        assert!(cells.iter().any(|cell| **cell == "1235"), "{rows:?}");
        assert!(cells.iter().any(|cell| **cell == "1.235e-4"), "{rows:?}");
    }
    let body = Body::HeatMap(HeatMap {
        rows: vec![("a".into(), vec![1.0, 2.5]), ("b".into(), vec![f64::NAN])],
        ..HeatMap::default()
    });
    let (head, rows) = Chart { title: String::new(), summary: String::new(), body }.table();
    assert_eq!(head[1..], ["0", "1"]);
    assert_eq!(rows, [["a", "1", "2.5"], ["b", "–", ""]]);
}

#[cfg(feature = "png")]
#[test]
fn a_png_has_two_dots_a_pixel() {
    for chart in charts(&[HOSTILE, "two"], &[3.0, 1.0, f64::NAN]) {
        let png = chart.png().expect("a picture");
        assert_eq!(png[..8], *b"\x89PNG\r\n\x1a\n");
        assert_eq!(png[16..20], 1280u32.to_be_bytes());
        assert_eq!(png, chart.png().expect("the same picture"));
    }
}
