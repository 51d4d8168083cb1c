// Counts the turns of a loop, and what they come to: some drivers end a loop early and say nothing.
override WORKGROUP: u32 = 8;

struct Params { turns: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read_write> output: array<u32>;   // turns, and the last number of the sequence

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    // A linear congruential sequence, which no compiler can leave out: Knuth, The Art of Computer Programming 2, 3.3.4.
    var x = 1u;
    var turns = 0u;
    for (var i = 0u; i < p.turns; i++) {
        x = x * 1664525u + 1013904223u;
        turns++;
    }
    if (id.x == 0u) {
        output[0] = turns;
        output[1] = x;
    }
}
