//! Several disks at once, and their progress as one.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError, mpsc};

use super::journal::Journal;
use super::look::look;
use super::selection::Rekey;
use super::steps::{Rekeyed, Steps};
use super::unit::Unit;
use crate::Interrupt;
use crate::task::libvirt::journal::Place;
use crate::task::{Error, Kind, MadeFile, Note, Silent, Watch, Work, Working};

impl Rekey<'_> {
    /// Gives each disk a new volume, several at once if the options say so. `done` gets the result
    /// of each as soon as it is known. A failure of one does not stop the others.
    ///
    /// # Errors
    /// An interrupt before anything was begun, and a thread that cannot be started.
    pub fn run(
        &self,
        watch: &dyn Watch,
        mut done: impl FnMut(&Unit, Result<Rekeyed, Error>),
    ) -> Result<(), Error> {
        watch.check()?;
        let silent = Silent(watch.interrupt().clone());
        let sizes = self.units.iter().map(|unit| self.size_of(unit, &silent));
        let working = Working::begin(watch, Work::Copy, Some(sizes.sum()));
        let left = Mutex::new(self.units.iter().collect::<VecDeque<_>>());
        let next = || {
            let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
            left.pop_front()
        };
        let threads = self.options.at_once.get().min(self.units.len());
        let mut failed = false;
        let making = Mutex::new(());
        let making = &making;
        std::thread::scope(|scope| {
            let (results, coming) = mpsc::channel();
            for _ in 0..threads {
                let results = results.clone();
                let run = move || {
                    while let Some(unit) = next() {
                        // The receiver lives until all threads have ended.
                        let _ = results.send((unit, self.rekey(unit, watch, making)));
                    }
                };
                std::thread::Builder::new()
                    .name("disk".to_owned())
                    .spawn_scoped(scope, run)
                    .map_err(Error::thread)?;
            }
            drop(results);
            for (unit, result) in coming {
                failed |= result.is_err();
                done(unit, result);
            }
            Ok::<_, Error>(())
        })?;
        if !failed {
            working.finish();
        }
        Ok(())
    }

    /// The bytes to copy. A disk that is refused, which is reported in its turn, has none.
    fn size_of(&self, unit: &Unit, watch: &dyn Watch) -> u64 {
        let looked = look(self.connection, unit, &self.options, watch);
        let looked = looked.map(|looked| looked.size);
        looked.unwrap_or_else(|_| {
            let name = unit.journal().ok();
            let place = name.and_then(|name| Place::take(&self.options.journals, &name).ok()?);
            let begun = place.and_then(|place| place.read::<Journal>().ok()?);
            begun.map_or(0, |begun| begun.size)
        })
    }

    fn rekey(&self, unit: &Unit, watch: &dyn Watch, making: &Mutex<()>) -> Result<Rekeyed, Error> {
        let within = Within::new(watch);
        let steps = Steps::of(self.connection, &self.options, unit, &within, making)?;
        let done = steps.run();
        match done {
            Err(error) if error.kind() != Kind::Interrupted => Err(error.about(unit)),
            done => done,
        }
    }
}

/// The watch of one disk. Of the progress, only the copied bytes are passed on, because the work of
/// several threads is not within each other.
struct Within<'a> {
    outer: &'a dyn Watch,
    /// The work in progress, the innermost last.
    works: Mutex<Vec<Work>>,
}

impl<'a> Within<'a> {
    fn new(outer: &'a dyn Watch) -> Self {
        let works = Mutex::default();
        Self { outer, works }
    }

    fn works(&self) -> std::sync::MutexGuard<'_, Vec<Work>> {
        self.works.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch for Within<'_> {
    fn interrupt(&self) -> &Interrupt {
        self.outer.interrupt()
    }

    fn begins(&self, work: Work, _total: Option<u64>) {
        self.works().push(work);
    }

    fn advances(&self, by: u64) {
        if self.works().last() == Some(&Work::Copy) {
            self.outer.advances(by);
        }
    }

    fn ends(&self, _work: Work, _whole: bool) {
        self.works().pop();
    }

    fn notes(&self, note: Note<'_>) {
        self.outer.notes(note);
    }

    fn unfinished(&self, file: &MadeFile, begun: bool) {
        self.outer.unfinished(file, begun);
    }
}
