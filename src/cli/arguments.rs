//! What holds for the arguments of every command.

use std::any::TypeId;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use clap::builder::{PathBufValueParser, StringValueParser, TypedValueParser};
use clap::{Arg, Command};

use crate::files::expand_home;

/// Reads a whole number within `bounds`, which `T` has room for.
pub fn whole<T>(bounds: RangeInclusive<u64>) -> impl TypedValueParser<Value = T>
where
    T: TryFrom<u64> + Clone + Send + Sync + 'static,
{
    StringValueParser::new().try_map(move |text| {
        let number = text.parse().ok().filter(|n| bounds.contains(n));
        number.and_then(|n| T::try_from(n).ok()).ok_or_else(|| {
            let (least, most) = (bounds.start(), bounds.end());
            format!("expected a whole number from {least} to {most}")
        })
    })
}

/// `command` and those below it, where every path may begin with `~/`, and where an option's
/// value that begins with a minus sign is a value: each option says itself which it takes.
pub fn prepared(command: Command) -> Command {
    command.mut_args(argument).mut_subcommands(prepared)
}

fn argument(arg: Arg) -> Arg {
    let arg = match arg.get_value_parser().type_id() == TypeId::of::<PathBuf>() {
        true => arg.value_parser(PathBufValueParser::new().try_map(|path| expand_home(&path))),
        false => arg,
    };
    let takes_value = arg.get_long().is_some() && arg.get_action().takes_values();
    arg.allow_negative_numbers(takes_value)
}
