//! A library of numbers: a core module without WIT.

#[no_mangle]
pub extern "C" fn gcd(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        let rest = a % b;
        a = b;
        b = rest;
    }
    a
}

#[no_mangle]
pub extern "C" fn mean(a: f64, b: f64) -> f64 {
    [a, b].iter().sum::<f64>() / 2.0
}
