//! The key that a contributor signs with, and the name that it gives them.

use super::SubmitArgs;
use crate::attest::contributor::{ContributorKey, address_of_name};
use crate::cli::exit::{Failure, Outcome};
use crate::ops::secrets;

/// The key of `--sign`, if there is one. The contributor is the key: a name that was given must be the same.
///
/// # Errors
/// A file that holds no key or that others can read, or another contributor's name.
pub(super) fn signer(args: &mut SubmitArgs) -> Outcome<Option<ContributorKey>> {
    let Some(file) = &args.sign else { return Ok(None) };
    let key = secrets::load_contributor_key(file).map_err(Failure::failed)?;
    let name = key.name();
    if args.contributor.is_empty() {
        args.contributor = name;
        return Ok(Some(key));
    }
    // An address counts in either case of its letters.
    let same = args.contributor == name
        || address_of_name(&args.contributor).is_some_and(|address| Some(address) == address_of_name(&name));
    if same {
        return Ok(Some(key));
    }
    Err(Failure::Usage(format!(
        "--contributor {} is not the key of --sign\nhelp: leave it out, or name {name}: only who is named by a key can sign",
        args.contributor
    )))
}
