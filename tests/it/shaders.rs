//! Shaders that no adapter would take, checked without one: each is parsed and validated, and its parameters lie where the
//! program puts them.

use naga::valid::{Capabilities, SubgroupOperationSet, ValidationFlags, Validator};
use naga::{AddressSpace, Module, TypeInner};
use radialsim::gpu::shaders;
use std::collections::BTreeSet;

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

#[test]
fn every_file_is_registered_under_its_name() {
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders")).expect("a folder");
    let files: BTreeSet<String> =
        files.map(|file| file.expect("a file").file_name().to_string_lossy().into_owned()).collect();
    let known: BTreeSet<String> =
        shaders::all().iter().map(|(shader, _)| format!("{}.wgsl", shader.name)).collect();
    assert_eq!(files, known);
}

/// The checks can fail: a shader with an unknown name is refused, and so is one with a wrong type.
#[test]
fn a_broken_shader_is_noticed() {
    let (shader, _) = &shaders::all()[0];
    assert!(naga::front::wgsl::parse_str(&shader.source.replace("id.x", "id.w")).is_err());
}
