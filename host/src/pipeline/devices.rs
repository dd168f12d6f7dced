//! Which accelerators are free: jobs of one run never share a device.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The devices that jobs of a run may use.
#[derive(Debug, Clone)]
pub struct Pool {
    free: Arc<Mutex<BTreeSet<u32>>>,
    count: Arc<Semaphore>,
    size: usize,
}

/// Devices that one job has until this is dropped.
#[derive(Debug)]
pub struct Lease {
    indices: Vec<u32>,
    free: Arc<Mutex<BTreeSet<u32>>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Lease {
    /// The devices' indices, in order.
    #[must_use]
    pub fn indices(&self) -> &[u32] {
        &self.indices
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).extend(self.indices.iter().copied());
    }
}

impl Pool {
    /// A pool of devices.
    #[must_use]
    pub fn new(indices: impl IntoIterator<Item = u32>) -> Self {
        let free: BTreeSet<u32> = indices.into_iter().collect();
        let size = free.len();
        Self { free: Arc::new(Mutex::new(free)), count: Arc::new(Semaphore::new(size)), size }
    }

    /// How many devices there are in all.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// Waits for `count` devices, and takes those with the lowest indices. None where there are not so many at all.
    pub async fn take(&self, count: usize) -> Option<Lease> {
        if count > self.size {
            return None;
        }
        let permits = u32::try_from(count).ok()?;
        let permit = self.count.clone().acquire_many_owned(permits).await.ok()?;
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let indices: Vec<u32> = free.iter().copied().take(count).collect();
        for index in &indices {
            free.remove(index);
        }
        drop(free);
        // The indices go back before the permit does: fields are dropped after `Lease::drop` has run.
        Some(Lease { indices, free: self.free.clone(), _permit: Some(permit) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn two_leases_never_share_a_device() {
        let pool = Pool::new([0, 1, 4]);
        let first = pool.take(2).await.unwrap();
        let second = pool.take(1).await.unwrap();
        assert_eq!((first.indices(), second.indices()), (&[0, 1][..], &[4][..]));
        drop(first);
        assert_eq!(pool.take(2).await.unwrap().indices(), [0, 1]);
    }

    #[tokio::test]
    async fn more_devices_than_there_are_are_never_waited_for() {
        assert!(Pool::new([0]).take(2).await.is_none());
        assert!(Pool::new([]).take(0).await.unwrap().indices().is_empty());
    }
}
