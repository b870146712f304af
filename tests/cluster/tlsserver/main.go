// Command tlsserver is what uses certificates in tests and in the demo:
//
//	tlsserver serve [-reload] [-refuse NAME] [-clients]    serves /tls on :8443; -refuse ends it if the certificate has that DNS name,
//	                                                       -clients wants certificates that /tls/ca.crt has signed
//	tlsserver watch HOST:PORT...                           shakes hands with each of them all the time, and prints how many failed
package main

import (
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"
)

// So long a server goes on after it was told to stop: until nobody is sent to it any more.
const drain = 5 * time.Second

func main() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	switch {
	case len(os.Args) > 1 && os.Args[1] == "serve":
		go serve(os.Args[2:])
		<-signals
		time.Sleep(drain)
	case len(os.Args) > 2 && os.Args[1] == "watch":
		go watch(os.Args[2:])
		<-signals
	default:
		fail("usage: tlsserver serve [-reload] [-refuse NAME] [-clients] | watch HOST:PORT...")
	}
}

func load() *tls.Certificate {
	pair, err := tls.LoadX509KeyPair("/tls/tls.crt", "/tls/tls.key")
	if err != nil {
		fail("cannot load the pair: " + err.Error())
	}
	return &pair
}

func serve(arguments []string) {
	flags := flag.NewFlagSet("serve", flag.ExitOnError)
	reload := flags.Bool("reload", false, "read the pair at each handshake, not only at the start")
	refuse := flags.String("refuse", "", "do not live with a certificate that has this DNS name")
	clients := flags.Bool("clients", false, "want a client certificate that ca.crt has signed")
	_ = flags.Parse(arguments)
	pair := load()
	if leaf, err := x509.ParseCertificate(pair.Certificate[0]); err == nil && *refuse != "" && slices.Contains(leaf.DNSNames, *refuse) {
		fail("cannot live with the name " + *refuse)
	}
	config := &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		if *reload {
			return load(), nil
		}
		return pair, nil
	}}
	if *clients {
		roots, err := os.ReadFile("/tls/ca.crt")
		if err != nil {
			fail(err.Error())
		}
		config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		config.ClientCAs.AppendCertsFromPEM(roots)
	}
	listener, err := tls.Listen("tcp", ":8443", config)
	if err != nil {
		fail(err.Error())
	}
	for {
		connection, err := listener.Accept()
		if err != nil {
			fail(err.Error())
		}
		go func() {
			_ = connection.SetDeadline(time.Now().Add(10 * time.Second))
			_ = connection.(*tls.Conn).Handshake()
			_ = connection.Close()
		}()
	}
}

func watch(addresses []string) {
	done, failed := 0, 0
	for {
		for _, address := range addresses {
			host, _, _ := net.SplitHostPort(address)
			dialer := &net.Dialer{Timeout: 3 * time.Second}
			// Whose certificate it is, is another question than whether one is served.
			connection, err := tls.DialWithDialer(dialer, "tcp", address, &tls.Config{ServerName: host, InsecureSkipVerify: true})
			done++
			if err != nil {
				failed++
				fmt.Println("failed:", address, err)
				continue
			}
			_ = connection.Close()
		}
		fmt.Printf("%d handshakes, %d failed\n", done, failed)
		time.Sleep(20 * time.Millisecond)
	}
}

// The last words of a container, for whoever looks at its Pod.
func fail(why string) {
	_ = os.WriteFile("/dev/termination-log", []byte(why), 0o644)
	fmt.Fprintln(os.Stderr, why)
	os.Exit(1)
}
