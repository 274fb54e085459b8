//! Names of tasks that were given none.

use core::fmt::{Result, Write};

/// Writes what a person would call a future of this type.
///
/// That of an `async fn` is a closure in the function, and has its name; that of an `async` block
/// is a closure in that one.
pub(crate) fn short(type_name: &str, into: &mut impl Write) -> Result {
    const CLOSURE: &str = "::{{closure}}";

    let generics = type_name.get(1..).and_then(|rest| rest.find('<'));
    let (path, _) = type_name.split_at(generics.map_or(type_name.len(), |at| at + 1));
    // `<T as Trait>::method` is too long to be a name, and has no shorter one.
    let mut name = path;
    let mut closures = 0;
    while let Some(outer) = name.strip_suffix(CLOSURE) {
        name = outer;
        closures += 1;
    }
    if !name.starts_with('<') {
        name = name.rsplit("::").next().unwrap_or(name);
    }
    into.write_str(name)?;
    if closures > 1 {
        into.write_str("::{async}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_task_is_called_by_the_function_that_its_future_is_of() {
        for (type_name, expected) in [
            ("hello::fetch::{{closure}}", "fetch"),
            ("hello::main::{{closure}}::{{closure}}", "main::{async}"),
            (
                "futures_util::future::map::Map<a::B<c::D>, e::{{closure}}>",
                "Map",
            ),
            ("<a::B as c::D>::e::{{closure}}", "<a::B as c::D>::e"),
            ("main", "main"),
            ("", ""),
        ] {
            let mut name = std::string::String::new();
            super::short(type_name, &mut name).unwrap();
            assert_eq!(name, expected);
        }
    }
}
