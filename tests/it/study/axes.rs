//! Points of a study by their numbers, against nested loops that anybody can read; and how evenly samples are spread.

use proptest::prelude::*;
use radialsim::study::{Axis, Grid};
use serde_json::{Value, json};

/// What each axis has at a point, by its name.
type Point = Vec<(String, Value)>;

fn values(count: usize) -> Axis {
    let values = (0..count).map(|index| json!(10 * index)).collect();
    Axis::Values { key: String::new(), also: vec![], name: None, values, labels: vec![] }
}

fn range(name: &str, log: bool, from: f64, to: f64, count: Option<u32>, whole: bool) -> Axis {
    let (key, also, name) = (name.to_owned(), vec![], None);
    if log {
        Axis::LogRange { key, also, name, from, to, count, whole }
    } else {
        Axis::Range { key, also, name, from, to, count, whole }
    }
}

/// Axes within axes, all of the same key so far.
fn nested() -> impl Strategy<Value = Axis> {
    let leaf = || (1..4_usize).prop_map(values);
    leaf().prop_recursive(2, 6, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..3).prop_map(Axis::Product),
            inner.prop_map(|axis| Axis::Zip(vec![axis.clone(), axis])),
        ]
    })
}

/// Gives each axis a key of its own.
fn number(axes: &mut [Axis], next: &mut u32) {
    for axis in axes {
        match axis {
            Axis::Values { key, .. } => {
                *key = format!("key{next}");
                *next += 1;
            }
            Axis::Zip(axes) | Axis::Product(axes) => number(axes, next),
            _ => unreachable!("only these are drawn"),
        }
    }
}

fn several() -> impl Strategy<Value = Vec<Axis>> {
    prop::collection::vec(nested(), 0..4).prop_map(|mut axes| {
        number(&mut axes, &mut 0);
        axes
    })
}

fn all_combinations(axes: &[Axis]) -> Vec<Point> {
    let mut points = vec![Point::new()];
    for axis in axes {
        let mut longer = Vec::new();
        for point in &points {
            for more in all_of(axis) {
                longer.push([point.clone(), more].concat());
            }
        }
        points = longer;
    }
    points
}

fn all_of(axis: &Axis) -> Vec<Point> {
    match axis {
        Axis::Values { key, values, .. } => {
            values.iter().map(|value| vec![(key.clone(), value.clone())]).collect()
        }
        Axis::Product(axes) => all_combinations(axes),
        Axis::Zip(axes) => {
            let columns: Vec<Vec<Point>> = axes.iter().map(all_of).collect();
            (0..columns[0].len())
                .map(|index| columns.iter().flat_map(|column| column[index].clone()).collect())
                .collect()
        }
        _ => unreachable!("only these are drawn"),
    }
}

fn at(choices: Vec<radialsim::study::AxisValue>) -> Point {
    choices.into_iter().map(|choice| (choice.leaf.name.clone(), choice.value)).collect()
}

fn points(axes: &[Axis]) -> Vec<Point> {
    let grid = Grid::new(axes).expect("right axes");
    (0..grid.count()).map(|index| at(grid.at(index))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn points_are_those_of_nested_loops(axes in several()) {
        prop_assert_eq!(points(&axes), all_combinations(&axes));
    }

    #[test]
    fn a_point_is_found_without_some_axes(axes in several(), picks in prop::collection::vec(any::<bool>(), 4)) {
        let grid = Grid::new(&axes).unwrap();
        let keys = axes.iter().zip(picks).filter_map(|(axis, is_out)| match axis {
            Axis::Values { key, .. } if is_out => Some(key.as_str()),
            _ => None,
        });
        let out: Vec<&str> = keys.collect();
        let without = grid.without(&out).unwrap();
        let left: Vec<Point> = (0..without.count()).map(|index| at(without.at(index))).collect();
        let names: Vec<&str> = without.out.iter().map(|leaf| leaf.name.as_str()).collect();
        prop_assert_eq!(&names, &out);
        for (index, mut point) in (0..).zip(all_combinations(&axes)) {
            point.retain(|(name, _)| !out.contains(&name.as_str()));
            let found = left.iter().position(|other| *other == point);
            prop_assert_eq!(Some(without.index_of(index) as usize), found);
        }
    }

    #[test]
    fn ranges_have_exact_ends_and_even_steps(
        from in 1e-3..1e3_f64, ratio in prop_oneof![1e-3..0.99, 1.01..1e3_f64], count in 2..60_u32, log: bool,
    ) {
        let to = from * ratio;
        let points = points(&[range("x", log, from, to, Some(count), false)]);
        let values: Vec<f64> = points.iter().map(|point| point[0].1.as_f64().unwrap()).collect();
        prop_assert_eq!((values[0], values[values.len() - 1]), (from, to));
        prop_assert_eq!(values.len(), count as usize);
        let step = |pair: &[f64]| if log { (pair[1] / pair[0]).ln() } else { pair[1] - pair[0] };
        let even = step(&[from, to]) / f64::from(count - 1);
        for pair in values.windows(2) {
            prop_assert!((step(pair) / even - 1.0).abs() < 1e-6, "{:?}", pair);
        }
    }

    #[test]
    fn whole_ranges_are_whole_without_doubles(
        from in -9.0..300_f64, to in -9.0..300_f64, count in 2..60_u32, log: bool,
    ) {
        let (from, to) = if log { (from.abs() + 0.1, to.abs() + 0.1) } else { (from, to) };
        let points = points(&[range("x", log, from, to, Some(count), true)]);
        let values: Vec<i64> = points.iter().map(|point| point[0].1.as_i64().expect("whole")).collect();
        prop_assert_eq!((values[0], values[values.len() - 1]), (from.round() as i64, to.round() as i64));
        let order = from.total_cmp(&to);
        prop_assert!(values.windows(2).all(|pair| pair[0].cmp(&pair[1]) == order), "{:?}", values);
        prop_assert!(values.len() <= count as usize);
    }

    #[test]
    fn samples_stay_within_bounds_and_follow_their_seed(seed: u32, sobol: bool, count in 8..80_u32) {
        let over = [
            range("even", false, -3.0, 5.0, None, false),
            range("ratio", true, 500.0, 0.01, None, false),
            range("whole", false, 4.0, -2.0, None, true),
            range("whole ratio", true, 1.0, 256.0, None, true),
            range("listed", false, 1.0, 2.0, Some(3), false),
        ];
        let bounds = [(-3.0, 5.0), (0.01, 500.0), (-2.0, 4.0), (1.0, 256.0), (1.0, 2.0)];
        let drawn = points(&[sample(sobol, count, seed, &over)]);
        prop_assert_eq!(drawn.len(), count as usize);
        for point in &drawn {
            for ((name, value), (low, high)) in point.iter().zip(bounds) {
                let number = value.as_f64().unwrap();
                prop_assert!((low..=high).contains(&number), "{} {}", name, number);
                prop_assert!(!name.starts_with("whole") || value.is_i64() || value.is_u64());
                prop_assert!(name != "listed" || [1.0, 1.5, 2.0].contains(&number));
            }
        }
        prop_assert_eq!(&points(&[sample(sobol, count, seed, &over)]), &drawn);
        // A longer sample begins with a shorter one.
        prop_assert_eq!(&points(&[sample(sobol, count + 9, seed, &over)])[..drawn.len()], &drawn[..]);
        prop_assert_ne!(&points(&[sample(sobol, count, seed.wrapping_add(1), &over)]), &drawn);
    }
}

fn sample(sobol: bool, count: u32, seed: u32, over: &[Axis]) -> Axis {
    let over = over.to_vec();
    if sobol { Axis::Sobol { count, seed, over } } else { Axis::Random { count, seed, over } }
}

/// Whether 256 points of the unit square have one in each cell of every grid of 256 equal cells whose sides are powers of two.
fn is_net(sobol: bool, seed: u32) -> bool {
    let side = |name| range(name, false, 0.0, 1.0, None, false);
    let drawn = points(&[sample(sobol, 256, seed, &[side("x"), side("y")])]);
    (0..=8_u32).all(|power| {
        let (columns, rows) = (f64::from(1 << power), f64::from(1 << (8 - power)));
        let cell = |point: &Point| {
            let [x, y] = [0, 1].map(|axis: usize| point[axis].1.as_f64().unwrap());
            ((x * columns) as usize) * rows as usize + (y * rows) as usize
        };
        let mut cells: Vec<usize> = drawn.iter().map(cell).collect();
        cells.sort_unstable();
        cells == Vec::from_iter(0..256)
    })
}

#[test]
fn sobol_points_are_a_net_and_random_ones_are_not() {
    for seed in 0..20 {
        assert!(is_net(true, seed), "seed {seed}");
        assert!(!is_net(false, seed), "seed {seed}");
    }
}

#[test]
fn drawn_whole_numbers_have_equal_shares_up_to_the_ends() {
    let drawn = points(&[sample(true, 256, 5, &[range("x", false, 1.0, 4.0, None, true)])]);
    for number in 1..=4 {
        assert_eq!(drawn.iter().filter(|point| point[0].1 == json!(number)).count(), 64, "{number}");
    }
}

#[test]
fn axes_of_a_sample_move_together_only_in_a_zip() {
    let zip = Axis::Zip(vec![
        range("a", false, 0.0, 9.0, Some(4), false),
        range("b", false, 1.0, 4.0, Some(4), true),
    ]);
    let axes = [sample(true, 64, 1, &[zip, range("c", false, 0.0, 9.0, Some(4), false)])];
    let drawn = points(&axes);
    let is_pair = |point: &Point| point[0].1.as_f64().unwrap() == 3.0 * (point[1].1.as_f64().unwrap() - 1.0);
    assert!(drawn.iter().all(is_pair));
    assert!(drawn.iter().any(|point| point[0].1 != point[2].1));
    let grid = Grid::new(&axes).unwrap();
    assert_eq!(grid.together("a"), ["a", "b", "c"]);
    assert!(grid.is_sampled("c") && grid.without(&["c"]).is_err());
}
