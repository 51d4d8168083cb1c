//! A memory pool: bytes taken, bytes given back, and the most that was ever held.

/// Bytes of one memory. `taken = given back + held` at every moment, and `held <= capacity`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    capacity: u64,
    held: u64,
    peak: u64,
    taken: u128,
    given_back: u128,
}

impl Pool {
    /// An empty pool.
    pub fn new(capacity: u64) -> Self {
        Pool { capacity, ..Pool::default() }
    }

    /// Takes bytes.
    ///
    /// # Errors
    /// How many bytes are short; nothing is taken then.
    pub fn take(&mut self, bytes: u64) -> Result<(), u64> {
        if bytes > self.free() {
            return Err(bytes - self.free());
        }
        self.held += bytes;
        self.taken += u128::from(bytes);
        self.peak = self.peak.max(self.held);
        Ok(())
    }

    /// Gives bytes back.
    pub fn give_back(&mut self, bytes: u64) {
        assert!(bytes <= self.held, "{bytes} bytes given back, {} held", self.held);
        self.held -= bytes;
        self.given_back += u128::from(bytes);
        assert_eq!(self.taken, self.given_back + u128::from(self.held), "bytes taken = given back + held");
    }

    /// Bytes that can still be taken.
    pub fn free(&self) -> u64 {
        self.capacity - self.held
    }

    /// Bytes in all.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Bytes held now.
    pub fn held(&self) -> u64 {
        self.held
    }

    /// The most that was ever held.
    pub fn peak(&self) -> u64 {
        self.peak
    }
}
