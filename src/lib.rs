#![doc = include_str!("../ARCHITECTURE.md")]

pub mod domain;

pub mod mapping;

pub mod receiver;

pub mod pipeline;

pub mod aggregator;

pub mod metrics;

pub mod tasks;

pub mod explain;

pub mod recent;

pub mod store;

pub mod web;

pub mod secrets;

pub mod tls;

pub mod auth;

pub mod listener;

pub mod memory;

pub mod config;

pub mod access;

pub mod reload;

pub mod replay;

pub mod load;

pub mod assembly;

pub mod recovery;

pub mod app;

pub mod cli;
