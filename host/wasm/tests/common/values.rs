//! A value of every kind that travels, as Rust has it and as `all` in the components.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Shape {
    None,
    Circle(f64),
    Named(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Kind {
    Small,
    Large,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rights {
    pub read: bool,
    pub write: bool,
    pub run: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct All {
    pub list: Vec<(u8, i16)>,
    pub text: Option<String>,
    pub result: Result<char, f64>,
    pub done: Result<(), ()>,
    pub shapes: Vec<Shape>,
    pub kind: Kind,
    pub rights: Rights,
    pub numbers: (u8, i8, u16, i32, u32, i64, u64, f32, bool),
}
