//! Random requests, delays, failures and restarts. After each step the invariants hold; at the end nothing is left
//! behind.

use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;

use super::*;

const GROUPS: [&str; 2] = ["g", "h"];
const PRODUCERS: [i64; 3] = [70, 71, 72];
const TOPICS: [&str; 3] = ["t", "u", "v"];

/// What a client knows of itself.
#[derive(Clone, Default)]
struct Client {
    member: String,
    generation: i32,
    instance: Option<String>,
    join: Option<Waiter>,
    sync: Option<Waiter>,
    /// The members it was told as the leader.
    leads: Vec<String>,
}

struct World {
    scene: Scene,
    clients: Vec<Client>,
    asked: HashSet<Waiter>,
    highest: BTreeMap<String, i32>,
}

impl World {
    fn new() -> World {
        let mut scene = Scene::new();
        scene.quick = false;
        let client =
            |i: usize| Client { instance: (i >= 4).then(|| format!("i{}", i % 2)), ..Client::default() };
        World {
            scene,
            clients: (0..7).map(client).collect(),
            asked: HashSet::new(),
            highest: BTreeMap::new(),
        }
    }

    fn step(&mut self, (what, who, extra): (u8, u8, u16)) {
        let index = usize::from(who) % self.clients.len();
        let client = self.clients[index].clone();
        match what % 21 {
            0..=2 => self.join(index, &client, extra),
            3..=5 => self.sync(index, &client),
            6 => {
                let identity = identity(&client.member, client.generation);
                let _ = self.scene.shard.heartbeat("g", &identity, self.scene.now);
            }
            7 => {
                if self.scene.leave(&client.member, client.instance.as_deref()).is_ok() {
                    self.clients[index].member.clear();
                }
            }
            8 => {
                let topic = TOPICS[usize::from(extra) % TOPICS.len()];
                let _ =
                    self.scene.commit(identity(&client.member, client.generation), topic, i64::from(extra));
            }
            9 => {
                let topic = TOPICS[usize::from(extra) % TOPICS.len()];
                let _ = self.scene.commit(identity("", NO_GENERATION), topic, i64::from(extra));
            }
            10 => self.scene.advance(u64::from(extra) % 20_000),
            11 | 12 => drop((0..extra % 4).map(|_| self.scene.land(true)).collect::<Vec<_>>()),
            13 => match extra % 7 {
                0 => drop(self.scene.land(false)),
                1 => self.restart(),
                2 => self.act(|scene| scene.shard.delete("g", scene.now).1),
                3 => self.act(|scene| scene.shard.expire(scene.now)),
                4 => self.act(|scene| scene.shard.topic_deleted(&Arc::from("t"))),
                5 => self.act(|scene| scene.shard.delete_offsets("g", &[at("u", 0)]).1),
                _ => self.scene.now.wall_ms += 24 * 3_600_000,
            },
            // Transactions are of producers, whoever the members are.
            15..=17 => {
                let (group, topic) =
                    (GROUPS[usize::from(who) % 2], TOPICS[usize::from(extra) % TOPICS.len()]);
                let producer = PRODUCERS[usize::from(extra / 4) % PRODUCERS.len()];
                let _ = self.scene.commit_in_transaction(producer, group, topic, i64::from(extra));
            }
            18 => self.scene.end_transaction(PRODUCERS[usize::from(who) % PRODUCERS.len()], extra % 3 > 0),
            19 => self.scene.snapshot(),
            14 => {
                if let Some(waiter) = client.join {
                    let now = self.scene.now;
                    self.act(|scene| scene.shard.abandon_join("g", &client.member, waiter, now));
                }
            }
            _ => self.learn(index),
        }
        self.learn(index);
        self.check();
    }

    fn act(&mut self, act: impl FnOnce(&mut Scene) -> Effects) {
        let effects = act(&mut self.scene);
        self.scene.take(effects);
    }

    fn join(&mut self, index: usize, client: &Client, extra: u16) {
        let protocols = match extra % 4 {
            0 => vec![protocol("range", &["t"])],
            1 => vec![protocol("range", &["t", "u"]), protocol("sticky", &["t"])],
            2 => vec![protocol("sticky", &["t"]), protocol("range", &["v"])],
            _ => vec![protocol("range", &["t"]), protocol("sticky", &["u"])],
        };
        let version = [2, 5, 9][usize::from(extra) / 4 % 3];
        // A static member that restarts has forgotten its id.
        let forgets = client.instance.is_some() && extra.is_multiple_of(5);
        let member = if forgets { String::new() } else { client.member.clone() };
        let who = Joiner { version, member, instance: client.instance.clone(), protocols, ..new_member() };
        let waiter = self.scene.join(&who);
        self.asked.insert(waiter);
        self.clients[index].join = Some(waiter);
    }

    fn sync(&mut self, index: usize, client: &Client) {
        let given: Vec<(&str, &str)> = client.leads.iter().map(|id| (id.as_str(), id.as_str())).collect();
        let waiter =
            self.scene.sync_as(&client.member, client.instance.as_deref(), client.generation, &given);
        self.asked.insert(waiter);
        self.clients[index].sync = Some(waiter);
    }

    fn learn(&mut self, index: usize) {
        let Some(waiter) = self.clients[index].join else { return };
        let client = &mut self.clients[index];
        match self.scene.joined(waiter) {
            None => return,
            Some(Ok(joined)) => {
                client.member = joined.member_id.to_string();
                client.generation = joined.generation_id;
                client.leads = joined.members.iter().map(|m| m.member_id.to_string()).collect();
            }
            Some(Err(JoinRefused { error: GroupError::MemberIdRequired, member_id })) => {
                client.member = member_id
            }
            Some(Err(JoinRefused { error: GroupError::RebalanceInProgress, .. })) => {}
            Some(Err(_)) => client.member.clear(),
        }
        client.join = None;
    }

    /// The broker dies: what is not durable is lost, and with it every parked request.
    fn restart(&mut self) {
        self.scene.shard = self.scene.replayed();
        let durable = self.scene.durable;
        self.scene.log.truncate(durable);
        self.scene.in_flight.clear();
        self.scene.snapshot_on_its_way = None;
        self.asked.clear();
        self.highest.clear();
        for client in &mut self.clients {
            (client.join, client.sync) = (None, None);
        }
    }

    fn check(&mut self) {
        self.scene.check_invariants();
        let mut waiting: Vec<Waiter> =
            self.asked.iter().filter(|w| !self.scene.answers.contains_key(w)).copied().collect();
        waiting.sort();
        let parked = self.scene.parked();
        assert_eq!(waiting, parked, "every request is parked once or answered");
        for id in GROUPS {
            match self.scene.shard.get(id) {
                Some(group) => {
                    let highest = self.highest.entry(id.to_owned()).or_insert(group.generation);
                    assert!(group.generation >= *highest, "the generation fell");
                    *highest = group.generation;
                }
                None => drop(self.highest.remove(id)),
            }
        }
        for reply in self.scene.answers.values() {
            if let Reply::Sync(_, Ok(synced)) = reply {
                // The leader gives each member its own id: whoever gets another's has somebody else's partitions.
                assert!(synced.assignment.is_ascii());
            }
        }
    }

    /// Everybody stops: time alone cleans up.
    fn wind_down(&mut self) {
        self.scene.quick = true;
        while self.scene.land(true) {}
        for producer in PRODUCERS {
            self.scene.end_transaction(producer, false);
        }
        self.scene.advance(3_600_000);
        self.check();
        assert!(self.scene.shard.groups().all(|g| g.members.is_empty() && g.pending_members.is_empty()));
        assert!(self.scene.parked().is_empty());
        for _ in 0..2 {
            self.scene.now.wall_ms += 8 * 24 * 3_600_000;
            self.act(|scene| scene.shard.expire(scene.now));
        }
        assert_eq!(self.scene.shard.groups().count(), 0, "a group stays for ever");
        assert_eq!(self.scene.shard.next_deadline_ms(), None);
        self.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_requests_keeps_the_invariants(
        steps in prop::collection::vec((any::<u8>(), any::<u8>(), any::<u16>()), 1..150)
    ) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.wind_down();
    }
}
