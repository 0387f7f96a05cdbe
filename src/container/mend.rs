//! Repairs to which the user has to agree: no checksum proves what they write, or they overwrite
//! data of another program.
//!
//! [`Container::repair`] makes the repairs that are safe. Where it refuses, [`Mend::find`] says
//! what can be done, and [`Mend::execute`] does it.

use std::fmt;
use std::sync::Arc;

use luksmith_formats::luks2::Position;
use luksmith_formats::{Hash, Limits, luks1, luks2};
use uuid::Uuid;

use super::pinned::Overwriting;
use super::plan::WritePlan;
use super::rewrite::write_copies;
use super::{
    CommitError, Container, Header, HeaderError, Health, OpenError, OpenOptions, Remains, Repaired,
    foreign, open, remains,
};
use crate::backend::Backend;
use crate::door;
use crate::trust::Trust;

const SECTOR: usize = 512;

/// The most repairs of one header: the magic of the secondary copy is put back, and then the
/// primary one is rewritten from it.
const MOST_MENDS: usize = 2;

/// A repair that can be made, and the reasons why the user has to agree to it.
pub struct Mend {
    plan: WritePlan,
    repaired: Vec<Repaired>,
    doubts: Vec<Doubt>,
    /// The start of the storage, which must still be the same when the repair is made.
    start: Vec<u8>,
}

/// Why the user has to agree to a repair. The `Display` is the reason in a question to the user.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Doubt {
    /// The repair overwrites data of another program.
    Overwrites(&'static str),
    /// No checksum proves that the repaired header is the old one.
    Unproven(String),
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overwrites(what) => write!(
                f,
                "the repair overwrites {what}, in the place of the LUKS header"
            ),
            Self::Unproven(what) => {
                write!(f, "no checksum proves that this repair is right: {what}")
            }
        }
    }
}

impl Container {
    /// As [`repair`](Self::repair). Where that refuses, it makes the repair of a [`Mend`], and of
    /// further ones that this makes possible, if `agree` accepts the doubts about them. `agree` is
    /// not asked twice about the same doubt.
    ///
    /// # Errors
    /// Returns the error of `agree`, and those of [`repair`](Self::repair) and [`Mend`] as a
    /// [`HeaderError`].
    pub fn repair_if<E: From<HeaderError>>(
        storage: &Arc<dyn Backend>,
        options: &OpenOptions,
        mut agree: impl FnMut(&[Doubt]) -> Result<(), E>,
    ) -> Result<Vec<Repaired>, E> {
        let (mut done, mut agreed) = (Vec::new(), Vec::new());
        for mends in 0.. {
            let refused = match Self::repair(storage.clone(), options.clone()) {
                Err(
                    refused @ (HeaderError::Open(OpenError::Remains(_))
                    | HeaderError::Commit(CommitError::Foreign(_))),
                ) => refused,
                repaired => {
                    done.extend(repaired?);
                    break;
                }
            };
            let mut mend = match Mend::find(storage, options)? {
                Some(mend) if mends < MOST_MENDS => mend,
                _ => return Err(refused.into()),
            };
            mend.doubts.retain(|doubt| !agreed.contains(doubt));
            agree(&mend.doubts)?;
            agreed.append(&mut mend.doubts);
            done.extend(mend.execute(storage, options)?);
        }
        Ok(done)
    }
}

impl Mend {
    /// Finds the repair of a header that cannot be used as it is, or that
    /// [`Container::repair`] does not repair because of other data. `None` if there is none.
    ///
    /// # Errors
    /// Returns [`HeaderError::Open`] if an interrupted change has to be rolled back first, or if
    /// nothing that can be repaired is left.
    pub fn find(
        storage: &Arc<dyn Backend>,
        options: &OpenOptions,
    ) -> Result<Option<Self>, HeaderError> {
        let limits = &options.limits;
        let damaged = match Container::open(storage.clone(), options.clone()) {
            Ok(container) => match (&container.health, container.header) {
                (Health::PrimaryDamaged(_), Header::Luks2(header)) => {
                    Self::from_secondary(storage, header)?
                }
                _ => return Ok(None),
            },
            Err(OpenError::Remains(remains)) => Self::from_remains(storage, &remains, limits)?,
            Err(error) => return Err(error.into()),
        };
        Ok(damaged)
    }

    fn from_remains(
        storage: &Arc<dyn Backend>,
        remains: &Remains,
        limits: &Limits,
    ) -> Result<Option<Self>, HeaderError> {
        match remains {
            Remains::Luks1Magic | Remains::Luks1Keyslots(_) => Self::of_luks1(storage, limits),
            Remains::Luks2Magic => Self::put_magic_back(storage, limits),
            Remains::Secondary { at, .. } => {
                let length = usize::try_from(*at).unwrap_or(usize::MAX);
                let copy = door::read(&**storage, *at, length)?;
                let header = luks2::Header::parse(&copy, Position::Secondary, limits)?;
                Self::from_secondary(storage, header)
            }
            Remains::Metadata { .. } => Self::from_metadata(storage, limits),
        }
    }

    /// A repair that has no step yet. `length` bytes must not change until it is made.
    fn begin(storage: &Arc<dyn Backend>, length: u64) -> Result<Self, HeaderError> {
        let length = length.min(storage.geometry().size);
        let start = door::read(&**storage, 0, usize::try_from(length).unwrap_or(usize::MAX))?;
        let over = foreign::signature(&**storage)?;
        Ok(Self {
            plan: WritePlan::default(),
            repaired: Vec::new(),
            doubts: over.map(Doubt::Overwrites).into_iter().collect(),
            start,
        })
    }

    fn of_luks1(storage: &Arc<dyn Backend>, limits: &Limits) -> Result<Option<Self>, HeaderError> {
        let mut mend = Self::begin(storage, luks1::HEADER_SIZE as u64)?;
        let (new, fixes) = luks1::Header::repaired(&mend.start, limits)?;
        if fixes.is_empty() {
            return Ok(None);
        }
        mend.plan.in_place();
        for (index, (old, new)) in mend
            .start
            .chunks(SECTOR)
            .zip(new.chunks(SECTOR))
            .enumerate()
        {
            if old != new {
                mend.plan.write((index * SECTOR) as u64, new.to_vec());
            }
        }
        mend.plan.flush();
        if fixes.iter().any(|fix| !fix.is_certain()) {
            let mut what: Vec<String> = fixes.iter().map(ToString::to_string).collect();
            what.extend(over_limit(&luks1::Header::parse(&new, limits)?, limits));
            mend.doubts.push(Doubt::Unproven(what.join("; ")));
        }
        mend.repaired = fixes.into_iter().map(Repaired::Luks1).collect();
        Ok(Some(mend))
    }

    fn put_magic_back(
        storage: &Arc<dyn Backend>,
        limits: &Limits,
    ) -> Result<Option<Self>, HeaderError> {
        let copies = remains::with_magic(&**storage, limits)?;
        let Some(end) = copies.iter().map(|copy| copy.hdr_size * 2).max() else {
            return Ok(None);
        };
        let mut mend = Self::begin(storage, end)?;
        for copy in &copies {
            let (at, magic) = copy.magic();
            let mut sector = door::read(&**storage, at, SECTOR)?;
            sector[..magic.len()].copy_from_slice(&magic);
            mend.plan.write(at, sector);
            mend.plan.flush();
            mend.repaired.push(Repaired::Magic(copy.position));
        }
        Ok(Some(mend))
    }

    fn from_secondary(
        storage: &Arc<dyn Backend>,
        mut header: luks2::Header,
    ) -> Result<Option<Self>, HeaderError> {
        let mut mend = Self::begin(storage, header.hdr_size * 2)?;
        header.seqid = header.seqid.saturating_add(1);
        let order = [Position::Primary, Position::Secondary];
        write_copies(&mut mend.plan, &header, order)?;
        mend.repaired.push(Repaired::PrimaryCopy);
        Ok(Some(mend))
    }

    fn from_metadata(
        storage: &Arc<dyn Backend>,
        limits: &Limits,
    ) -> Result<Option<Self>, HeaderError> {
        let Some((at, metadata)) = remains::metadata(&**storage, limits)? else {
            return Ok(None);
        };
        let header = luks2::Header {
            hdr_size: metadata.hdr_size(),
            seqid: 1,
            label: String::new(),
            subsystem: String::new(),
            uuid: Uuid::new_v4().to_string(),
            checksum: Hash::Sha256,
            metadata,
        };
        let mut mend = Self::begin(storage, header.hdr_size * 2)?;
        mend.plan.in_place();
        let order = [Position::Primary, Position::Secondary];
        write_copies(&mut mend.plan, &header, order)?;
        mend.doubts.push(Doubt::Unproven(format!(
            "keyslots and segments are those at byte {at}; the label is lost, and the volume gets a \
             new UUID"
        )));
        mend.repaired
            .push(Repaired::FromMetadata { uuid: header.uuid });
        Ok(Some(mend))
    }

    /// Why the user has to agree to the repair. Empty for a repair that needs no agreement.
    #[must_use]
    pub fn doubts(&self) -> &[Doubt] {
        &self.doubts
    }

    /// Makes the repair, and returns what was done. The header may need another repair then, which
    /// this one has made possible.
    ///
    /// # Errors
    /// Returns [`HeaderError::Commit`] if the storage has changed meanwhile, if there is no undo
    /// store and the repair needs one, if the repaired header is not the pinned one, or if writing
    /// failed. Returns [`HeaderError::Open`] if the
    /// repaired header does not open.
    pub fn execute(
        self,
        storage: &Arc<dyn Backend>,
        options: &OpenOptions,
    ) -> Result<Vec<Repaired>, HeaderError> {
        if door::read(&**storage, 0, self.start.len())? != self.start {
            return Err(CommitError::Changed.into());
        }
        let after = open::load(&self.plan.preview(&**storage), &options.limits);
        let overwriting = match (&options.trust, after) {
            (Trust::Pinned(pinned), Ok(after)) => {
                let begun = Overwriting::repairs(pinned, &self.plan, &after.header, &**storage);
                Some(begun.map_err(CommitError::from)?)
            }
            // What cannot be read yet needs another repair, after which it is compared.
            _ => None,
        };
        self.plan.execute(&**storage, options.undo.store())?;
        if let Some(overwriting) = overwriting {
            overwriting.end();
        }
        match open::load(&**storage, &options.limits) {
            // Another repair has become possible.
            Ok(_) | Err(OpenError::Remains(_)) => Ok(self.repaired),
            Err(error) => Err(error.into()),
        }
    }
}

/// Costs of a LUKS1 header over the limit, which show that more of it is damaged.
fn over_limit(header: &luks1::Header, limits: &Limits) -> Vec<String> {
    let slots = header.keyslots.iter().enumerate();
    let slots = slots.filter(|(_, keyslot)| keyslot.active);
    let slots = slots.map(|(slot, keyslot)| (format!("keyslot {slot}"), keyslot.iterations));
    let digest = ("the digest".to_owned(), header.digest_iterations);
    let limit = limits.pbkdf2_iterations;
    std::iter::once(digest)
        .chain(slots)
        .filter(|(_, iterations)| *iterations > limit)
        .map(|(what, iterations)| {
            format!(
                "{what} asks for {iterations} iterations, over the limit of {limit}: it is \
                 probably damaged too"
            )
        })
        .collect()
}

impl fmt::Debug for Mend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mend")
            .field("repaired", &self.repaired)
            .field("doubts", &self.doubts)
            .finish_non_exhaustive()
    }
}
