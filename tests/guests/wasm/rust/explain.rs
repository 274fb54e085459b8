//! The world `texts`, without generated bindings: what goes to and fro is in the canonical ABI.

use std::alloc::{alloc, dealloc, realloc, Layout};
use std::collections::BTreeMap;

/// Where bytes lie, and how many.
#[repr(C)]
pub struct Text(*mut u8, usize);

impl Text {
    fn given(text: String) -> Self {
        let bytes = Box::leak(text.into_boxed_str().into_boxed_bytes());
        Self(bytes.as_mut_ptr(), bytes.len())
    }

    /// What was given by `cabi_realloc`.
    unsafe fn taken(self) -> String {
        String::from_utf8(Vec::from_raw_parts(self.0, self.1, self.1)).expect("texts are UTF-8")
    }
}

#[repr(C)]
pub struct Perhaps(u8, Text);

#[link(wasm_import_module = "my:app/kv")]
extern "C" {
    fn get(key: *const u8, length: usize, value: *mut Perhaps);
}

/// What the host says of a word.
fn said(word: &str) -> Option<String> {
    let mut value = Perhaps(0, Text(std::ptr::null_mut(), 0));
    unsafe {
        get(word.as_ptr(), word.len(), &mut value);
        (value.0 == 1).then(|| value.1.taken())
    }
}

#[export_name = "explain"]
pub unsafe extern "C" fn explain(text: *mut u8, length: usize) -> *mut Text {
    let text = Text(text, length).taken();
    let words = text.split(' ').map(|word| match said(word) {
        Some(said) => format!("{} ({})", word, said),
        None => word.into(),
    });
    Box::into_raw(Box::new(Text::given(words.collect::<Vec<_>>().join(" "))))
}

/// Frees what `explain` has given, when it has been read.
#[export_name = "cabi_post_explain"]
pub unsafe extern "C" fn explained(text: *mut Text) {
    drop(Box::from_raw(text).taken());
}

#[repr(C)]
pub struct Counted(Text, u32);

#[repr(C)]
pub struct List(*mut Counted, usize);

#[export_name = "count"]
pub unsafe extern "C" fn count(text: *mut u8, length: usize) -> *mut List {
    let text = Text(text, length).taken();
    let mut counts = BTreeMap::new();
    for word in text.split_whitespace() {
        *counts.entry(word).or_insert(0) += 1;
    }
    let counts = counts.into_iter().map(|(word, count)| Counted(Text::given(word.into()), count));
    let counts = Box::leak(counts.collect::<Box<[_]>>());
    Box::into_raw(Box::new(List(counts.as_mut_ptr(), counts.len())))
}

#[export_name = "cabi_post_count"]
pub unsafe extern "C" fn counted(list: *mut List) {
    let list = Box::from_raw(list);
    for counted in Vec::from_raw_parts(list.0, list.1, list.1) {
        drop(counted.0.taken());
    }
}

/// Where whoever calls puts what it gives.
#[export_name = "cabi_realloc"]
pub unsafe extern "C" fn cabi_realloc(old: *mut u8, was: usize, align: usize, size: usize) -> *mut u8 {
    let layout = |size| Layout::from_size_align_unchecked(size, align);
    match (was, size) {
        (0, 0) => align as *mut u8,
        (0, _) => alloc(layout(size)),
        (_, 0) => {
            dealloc(old, layout(was));
            align as *mut u8
        }
        _ => realloc(old, layout(was), size),
    }
}
