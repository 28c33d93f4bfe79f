//! Names that training's wrappers put into the keys of a state dict.

use std::borrow::Cow;

/// `torch.compile`; `DistributedDataParallel` and `DataParallel`; FSDP, new and old;
/// recomputation (`checkpoint_wrapper`); Lightning's strategies.
const WRAPPERS: [&str; 6] = [
    "_orig_mod",
    "module",
    "_fsdp_wrapped_module",
    "_fpw_module",
    "_checkpoint_wrapped_module",
    "_forward_module",
];

/// `key` without the names of wrappers, wherever they stand: any part of a model may have
/// been wrapped, also several times.
pub fn unwrapped(key: &str) -> Cow<'_, str> {
    let Some((path, last)) = key.rsplit_once('.') else {
        return key.into();
    };
    if !path.split('.').any(|part| WRAPPERS.contains(&part)) {
        return key.into();
    }
    let parts = path.split('.').filter(|part| !WRAPPERS.contains(part));
    let parts: Vec<&str> = parts.chain([last]).collect();
    parts.join(".").into()
}

#[cfg(test)]
mod tests {
    use super::unwrapped;

    #[test]
    fn wrappers_are_looked_through_in_any_order() {
        for (key, plain) in [
            ("module.a.weight", "a.weight"),
            ("_orig_mod.module.a.weight", "a.weight"),
            ("module._orig_mod.a.weight", "a.weight"),
            (
                "a._fsdp_wrapped_module.b._checkpoint_wrapped_module.c.bias",
                "a.b.c.bias",
            ),
            ("_fsdp_wrapped_module.a._orig_mod.b", "a.b"),
            ("a.module", "a.module"),
            ("a.modules.b", "a.modules.b"),
            ("weight", "weight"),
        ] {
            assert_eq!(unwrapped(key), plain);
        }
    }
}
