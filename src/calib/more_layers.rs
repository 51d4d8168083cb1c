//! Tables of the layers of further models on a device whose profile has those of one: each shape gets a grid of its own, and constants stay.

use super::fitted::{Fitted, fitted};
use super::grid::{Point, Slot, by_rows, chunk, correction, decode, grid, mixed, need, pairs};
use super::layers::Layers;
use crate::cost::{Device, Limits, of_shape_name};
use crate::error::{InputError, Result};
use crate::hw::Hardware;
use crate::kernel::Class;

/// What tables say by shape, with its place in a profile.
pub(super) fn slots(layers: &Layers) -> Result<Vec<(Slot, Vec<Point>)>> {
    let attention = |points: Vec<Point>| -> Result<(Slot, Vec<Point>)> {
        need(points.len(), "attention")?;
        let name = of_shape_name(&points[0].kernel).unwrap_or_default();
        Ok((Slot::OfShape(name), points))
    };
    let mut all = vec![attention(chunk(layers))?, attention(decode(layers))?, attention(mixed(layers)?)?];
    all.extend(by_rows(layers, true).into_iter().map(|(name, points)| (Slot::of(&name, &points), points)));
    Ok(all)
}

/// Writes grids of these shapes into a profile, without a word about their errors.
pub(super) fn put(hw: &mut Hardware, slots: &[(Slot, Vec<Point>)], layers: &Layers) -> Result<()> {
    let device = Device::new(hw, Limits::default())?;
    let written: Vec<_> =
        slots.iter().map(|(slot, points)| (slot, correction(&device, points, layers))).collect();
    written.into_iter().for_each(|(slot, correction)| slot.put(hw, correction));
    Ok(())
}

/// Adds grids of the shapes in these tables to a profile that was fitted to the layers of another model, or of other parts of the same. Its
/// constants and other grids stay; so no price of another shape changes. Every row is taken in the end; errors are those on rows kept aside in turn.
/// The first line says how wrong the profile was about these products before.
///
/// # Errors
/// A profile without layers; tables that lack a kind of kernel; shapes that the profile has.
pub fn add_layers(hw: &mut Hardware, layers: &Layers) -> Result<Vec<Fitted>> {
    let has_layers = hw.corrections.as_ref().is_some_and(|all| all.mixed_attention.is_some());
    if !has_layers {
        let expected = "a profile that was fitted to the layers of a model, to add those of another to";
        return Err(InputError::expected(expected).key("hw").found(&hw.name).into());
    }
    let all = slots(layers)?;
    let has =
        |name: &str| hw.corrections.as_ref().is_some_and(|all| all.named().any(|(known, _)| known == name));
    // What the profile knows of a shape stays.
    let slots: Vec<_> = all.into_iter().filter(|(slot, _)| !has(slot.name())).collect();
    if slots.is_empty() {
        let wrong = InputError::expected("shapes that the profile does not have yet").key("add");
        return Err(wrong.found("none").into());
    }
    let products: Vec<Point> = slots
        .iter()
        .flat_map(|(_, points)| points)
        .filter(|point| point.kernel.class() == Class::MatMul)
        .copied()
        .collect();
    need(products.len(), "products")?;
    let before = pairs(hw, &products)?;
    let layers_of = slots.iter().filter(|(_, points)| points[0].kernel.class() == Class::MatMul).count();
    let each = before.iter().enumerate().map(|(row, &(said, was))| (row, said, was)).collect();
    let mut out =
        vec![fitted("matmul", products.len(), ("layer", layers_of), [before.clone(), before], each)?];
    for (slot, points) in &slots {
        out.push(grid(hw, slot, points, layers)?);
    }
    Ok(out)
}
