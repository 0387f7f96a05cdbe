//! How a mounted file is served.

/// How a mounted file is served.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The threads that take requests. Default: one for each processor, from 2 to 8.
    pub threads: usize,
    /// The most threads that wait for slow storage. Default: 128.
    pub max_waiting: usize,
    /// The page cache is not used: each read and write of a program is a request. So the kernel
    /// keeps no plaintext. Default: false.
    pub direct_io: bool,
}

impl Default for Options {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            threads: processors.clamp(2, 8),
            max_waiting: 128,
            direct_io: false,
        }
    }
}
