//! Shaders that no adapter would take, checked without one: each is parsed and validated, and its parameters lie where the
//! program puts them.

use naga::valid::{Capabilities, SubgroupOperationSet, ValidationFlags, Validator};
use naga::{AddressSpace, Module, TypeInner};
use radialsim::gpu::{Shader, shaders};
use std::collections::BTreeMap;
use std::path::Path;

fn parsed(name: &str, source: &str) -> Module {
    naga::front::wgsl::parse_str(source)
        .unwrap_or_else(|error| panic!("{name}: {}", error.emit_to_string(source)))
}

#[test]
fn every_shader_is_valid_and_has_one_entry_point() {
    for (shader, _) in shaders::all() {
        let module = parsed(shader.name, shader.source);
        let mut validator = Validator::new(ValidationFlags::all(), Capabilities::all());
        validator
            .subgroup_operations(SubgroupOperationSet::all())
            .subgroup_stages(naga::valid::ShaderStages::COMPUTE);
        let valid = validator.validate(&module);
        assert!(valid.is_ok(), "{}: {:?}", shader.name, valid.err());
        assert_eq!(module.entry_points.len(), 1, "{}", shader.name);
        assert!(
            module.overrides.iter().any(|(_, value)| value.name.as_deref() == Some("WORKGROUP")),
            "{}",
            shader.name
        );
    }
}

#[test]
fn parameters_lie_where_the_program_puts_them() {
    for (shader, members) in shaders::all() {
        let module = parsed(shader.name, shader.source);
        let found =
            module.global_variables.iter().find(|(_, variable)| variable.space == AddressSpace::Immediate);
        let found: Vec<(String, u32)> = found.map_or_else(Vec::new, |(_, variable)| {
            let TypeInner::Struct { members, .. } = &module.types[variable.ty].inner else {
                panic!("a struct")
            };
            members.iter().map(|member| (member.name.clone().unwrap_or_default(), member.offset)).collect()
        });
        let members: Vec<(String, u32)> =
            members.into_iter().map(|(name, offset)| (name.into(), offset)).collect();
        assert_eq!(found, members, "{}", shader.name);
    }
}

fn files_of(folder: &str) -> BTreeMap<String, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let paths = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let name = |path: &Path| path.file_name().expect("a name").to_string_lossy().into_owned();
    let files = paths.filter(|path| path.is_file());
    files.map(|path| (name(&path), std::fs::read_to_string(&path).expect("text"))).collect()
}

#[test]
fn every_file_is_registered_under_its_name() {
    let known: BTreeMap<String, Shader> =
        shaders::all().into_iter().map(|(shader, _)| (format!("{}.wgsl", shader.name), shader)).collect();
    let files = files_of("shaders");
    assert!(files.keys().eq(known.keys()), "{:?} and {:?}", files.keys(), known.keys());
    for (name, text) in &files {
        assert!(known[name].source.starts_with(text), "{name}");
    }
    for (name, text) in files_of("shaders/shared") {
        assert!(known.values().any(|shader| shader.source.contains(&text)), "nobody takes {name}");
    }
}

/// The checks can fail: a shader with an unknown name is refused, and so is one with a wrong type.
#[test]
fn a_broken_shader_is_noticed() {
    let (shader, _) = &shaders::all()[0];
    assert!(naga::front::wgsl::parse_str(&shader.source.replace("id.x", "id.w")).is_err());
}
