//! libwebp's memory comes from Rust's allocator, so that one allocator serves the whole program.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc};
use std::ptr;

/// In front of each block stands its size, which `free` is not told. 16 bytes keep the alignment that `malloc` promises.
const HEADER: usize = 16;

fn layout(size: usize) -> Option<Layout> {
    Layout::from_size_align(size.checked_add(HEADER)?, HEADER).ok()
}

#[expect(unsafe_code, reason = "called by libwebp's utils.c in place of malloc and calloc")]
#[unsafe(no_mangle)]
extern "C" fn pruned_webp_take(size: usize, zeroed: bool) -> *mut u8 {
    let Some(layout) = layout(size) else { return ptr::null_mut() };
    // SAFETY: the layout has at least the header's size. What is returned lies inside the block, behind the header,
    // which is aligned for the `usize` that is written there.
    unsafe {
        let block = if zeroed { alloc_zeroed(layout) } else { alloc(layout) };
        if block.is_null() {
            return block;
        }
        block.cast::<usize>().write(size);
        block.add(HEADER)
    }
}

#[expect(unsafe_code, reason = "called by libwebp's utils.c in place of free")]
#[unsafe(no_mangle)]
extern "C" fn pruned_webp_give_back(data: *mut u8) {
    if data.is_null() {
        return;
    }
    // SAFETY: libwebp frees what it took and nothing else, so the header is there and says the size it was taken with.
    unsafe {
        let block = data.sub(HEADER);
        let size = block.cast::<usize>().read();
        let layout = layout(size).expect("it was a layout when it was taken");
        dealloc(block, layout);
    }
}
