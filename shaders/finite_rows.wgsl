// Notes whether rows hold numbers that are not finite: a subgroup a row. By the bits, as compilers may take it that there are none.
override WORKGROUP: u32 = 8;   // a multiple of the subgroup's size

struct Params {
    rows: u32,
    width4: u32,
    stride4: u32,
    note: u32,       // where in lists a 1 is noted
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> values: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> lists: array<atomic<u32>>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_size) size: u32,
) {
    let row = group.x * subgroups + subgroup;
    if (row >= p.rows) { return; }
    var odd = false;
    for (var i = lane; i < p.width4; i += size) {
        let exponent = values[row * p.stride4 + i] & vec4<u32>(0x7f800000u);
        odd = odd || any(exponent == vec4<u32>(0x7f800000u));
    }
    if (odd) { atomicStore(&lists[p.note], 1u); }
}
