//! Images that do not exist yet.

use std::sync::Arc;

use luksmith_formats::rbd::Uri;

use super::cluster::Pool;
use super::error::{Problem, RbdError};
use super::{RbdBackend, RbdOptions, image};

/// The binary logarithm of the size of an object, if the configuration does not say it.
const ORDER: u8 = 22;

/// The name of an image that does not exist, in a pool that does.
pub struct AbsentImage {
    uri: Uri,
    options: RbdOptions,
    pool: Arc<Pool>,
    /// The binary logarithm of the size of an object.
    order: u8,
}

impl AbsentImage {
    /// Connects to the cluster and looks for the image. `None` if there is one.
    ///
    /// # Errors
    /// [`RbdError`], whose source is the [`Problem`].
    pub fn look(uri: &Uri, options: RbdOptions) -> Result<Option<Self>, RbdError> {
        let about = |problem| RbdError::new(uri, problem);
        let pool = Arc::new(Pool::connect(uri, &options).map_err(about)?);
        match image::Image::open(pool.clone(), &uri.image, None, false) {
            Ok(_) => Ok(None),
            // A snapshot of an image that does not exist is not made.
            Err(Problem::NoImage) if uri.snapshot.is_none() => {
                let order = pool.cluster.option("rbd_default_order");
                let order = order.and_then(|order| order.parse().ok());
                Ok(Some(Self {
                    uri: uri.clone(),
                    options,
                    pool,
                    order: order
                        .filter(|order| (12..=25).contains(order))
                        .unwrap_or(ORDER),
                }))
            }
            Err(problem) => Err(about(problem)),
        }
    }

    /// The stripe period that the image will have, in bytes: the size of an object.
    #[must_use]
    pub fn period(&self) -> u64 {
        1 << self.order
    }

    /// Makes the image, and opens it for writing.
    ///
    /// # Errors
    /// As [`RbdBackend::open`]; [`Problem::Exists`] for an image that was made meanwhile.
    pub fn make(self, size: u64) -> Result<(RbdBackend, NewImage), RbdError> {
        let about = |problem| RbdError::new(&self.uri, problem);
        image::create(&self.pool, &self.uri.image, size, self.order).map_err(about)?;
        let made = NewImage {
            pool: self.pool.clone(),
            name: self.uri.image.clone(),
            kept: false,
        };
        let backend = RbdBackend::open_in(self.pool, &self.uri, &self.options.write(true))?;
        Ok((backend, made))
    }
}

/// An image that was made. It is removed when this is dropped, unless it is kept; what has it open
/// is dropped before.
pub struct NewImage {
    pool: Arc<Pool>,
    name: String,
    kept: bool,
}

impl NewImage {
    /// Keeps the image.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for NewImage {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = image::remove(&self.pool, &self.name)
        {
            tracing::warn!(image = self.name, %error, "an unfinished image could not be removed");
        }
    }
}
