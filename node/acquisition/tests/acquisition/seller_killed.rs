//! A seller that is killed between any two of its writes and messages, of a plain purchase and of one in parts: in the end its buyer has
//! what it asked for, once, and both have the same books.

use std::sync::Arc;
use std::time::Duration;

use fluidos_acquisition::exporter::Exporter;
use fluidos_model::kinds::Contract;
use futures::future::join_all;

use crate::support::fuse::{Fuse, Fused, fused};
use crate::support::{Node, books_agree};

/// Markets at the same time: most of the time is waiting.
const LANES: usize = 4;

/// What is bought.
#[derive(Clone, Copy)]
enum What {
    /// All of it from the seller that dies.
    Whole,
    /// Two pods of three from the seller that dies, one from another.
    Parts,
}

struct Market {
    what: What,
    buyer: Node,
    grid: Node,
    cloud: Node,
}

impl Market {
    async fn new(what: What) -> Self {
        let mut buyer = Node::start(1, "farm", None).await;
        let mut grid = Node::without_rooms(2, "grid", Some(2500)).await;
        // Long enough for who comes back, short enough to see that what nobody bought is given back.
        grid.options.hold = Duration::from_secs(3);
        let cloud = Node::start(3, "cloud", Some(1500)).await;
        buyer.know(&grid).await;
        if let What::Parts = what {
            buyer.know(&cloud).await;
        }
        buyer.fabric();
        // What is written once, whoever is killed.
        grid.open(|exporter| exporter).await;
        Self { what, buyer, grid, cloud }
    }

    /// The writes of the seller pass the fuse, and so do the messages to it.
    async fn open(&mut self, fuse: &Fuse) {
        self.grid.kill().await;
        let messages = fuse.clone();
        let wrap = |seller: Arc<Exporter>| Arc::new(Fused { seller, fuse: messages, sells: true });
        self.grid.open_as(fused(&self.grid.client, fuse), wrap).await;
    }

    async fn buy(&self) {
        match self.what {
            What::Whole => self.buyer.solver("shop", "2", &[]).await,
            What::Parts => self.buyer.split_solver("shop", 3).await,
        }
    }

    async fn is_bought(&self, moment: i64) {
        let message = self.buyer.solver_is("shop", "Solved").await;
        books_agree(&self.buyer, &[&self.grid, &self.cloud]).await;
        let of_grid = self.grid.list::<Contract>().await.len();
        let all = self.buyer.list::<Contract>().await.len();
        let wanted = match self.what {
            What::Whole => (1, 1),
            What::Parts => (1, 2),
        };
        assert_eq!((of_grid, all), wanted, "killed at moment {moment}: {message}");
    }
}

/// Buys, and kills the seller at each moment in turn, until a purchase is done before its moment has come. Returns how many there are.
async fn at_every_moment(what: What) -> i64 {
    join_all((0..LANES).map(|lane| at_moments(what, lane))).await.into_iter().min().unwrap()
}

async fn at_moments(what: What, first: usize) -> i64 {
    let mut market = Market::new(what).await;
    for moment in (i64::try_from(first).unwrap()..).step_by(LANES) {
        let fuse = Fuse::at(moment);
        market.open(&fuse).await;
        market.buy().await;
        let killed = tokio::select! {
            () = fuse.burnt() => true,
            () = market.is_bought(moment) => false,
        };
        if killed {
            // Who asks finds nobody for a moment; then it comes back with what it has written.
            market.grid.kill().await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            market.open(&Fuse::at(i64::MAX)).await;
            market.is_bought(moment).await;
        }
        market.buyer.delete_solver("shop").await;
        if !killed {
            return moment;
        }
        for node in [&market.buyer, &market.grid, &market.cloud] {
            node.empty().await;
        }
    }
    unreachable!("a purchase has an end")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seller_killed_at_any_moment_sells_once_what_was_asked_for() {
    let moments = at_every_moment(What::Whole).await;
    assert!(moments >= 10, "{moments} moments: a hold, a sale, and what is written of them");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_it_is_with_one_of_several_parts() {
    let moments = at_every_moment(What::Parts).await;
    assert!(moments >= 10, "{moments} moments");
}
