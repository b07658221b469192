//! The worker's render on the system's allocator, for `render-bench --allocators`.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, dead_code)]

#[path = "render_table/variants.rs"]
mod variants;

fn main() {
    variants::serve(variants::Variant::Method4);
}
