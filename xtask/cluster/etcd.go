package main

import (
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/embed"
)

// etcdCommand is an etcd of one member on loopback. Its data does not outlive the cluster, so
// nothing waits for a disk.
func etcdCommand() *cobra.Command {
	var folder, listen, level string
	command := &cobra.Command{
		Use:          "etcd",
		SilenceUsage: true,
		RunE: func(*cobra.Command, []string) error {
			client, err := url.Parse(listen)
			if err != nil {
				return err
			}
			// Even a lone member needs a peer address; port 0 takes a free one.
			peer := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
			config := embed.NewConfig()
			config.Name = "test"
			config.Dir = folder
			config.LogLevel = level
			config.UnsafeNoFsync = true
			config.ListenClientUrls = []url.URL{*client}
			config.AdvertiseClientUrls = []url.URL{*client}
			config.ListenPeerUrls = []url.URL{peer}
			config.AdvertisePeerUrls = []url.URL{peer}
			config.InitialCluster = config.InitialClusterFromName(config.Name)
			return serve(config)
		},
	}
	command.Flags().StringVar(&folder, "data-dir", "etcd", "folder of the data")
	command.Flags().StringVar(&listen, "listen-client-url", "http://127.0.0.1:2379", "the one client address")
	command.Flags().StringVar(&level, "log-level", "error", "debug, info, warn or error")
	return command
}

// serve runs the member until it fails or is told to end.
func serve(config *embed.Config) error {
	member, err := embed.StartEtcd(config)
	if err != nil {
		return err
	}
	defer member.Close()
	select {
	case <-member.Server.ReadyNotify():
	case <-time.After(30 * time.Second):
		return fmt.Errorf("etcd was not ready after 30 s")
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM, os.Interrupt)
	select {
	case <-end:
		return nil
	case err := <-member.Err():
		return err
	}
}
