// What the Go project Espigah/latency-aggregator does with a push, on net/http and client_golang alone: it keeps the stages of
// an id under one mutex, waits for the push's life span with a timer of its own, and if nothing came meanwhile observes the
// flow's duration in a histogram of the flow's name. A closed flow is kept for its time to live.
//
// The Go project itself adds a web framework, a log line and metrics for each request to that.
package main

import (
	"encoding/json"
	"flag"
	"log"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

type push struct {
	ID          string            `json:"id"`
	Name        string            `json:"name"`
	Stage       string            `json:"stage"`
	Help        string            `json:"help"`
	LifeSpan    int               `json:"life_span"`
	TimeToLive  int               `json:"time_to_live"`
	CreatedAt   time.Time         `json:"created_at"`
	Buckets     []float64         `json:"buckets"`
	LabelValues map[string]string `json:"label_values"`
}

type stage struct {
	name        string
	labelValues map[string]string
}

type instance struct {
	name      string
	createdAt time.Time
	updatedAt time.Time
	stages    []stage
	closed    bool
}

type aggregator struct {
	mutex      sync.Mutex
	instances  map[string]*instance
	histograms map[string]prometheus.Histogram
}

func main() {
	address := flag.String("listen", "127.0.0.1:0", "address to listen on")
	flag.Parse()
	a := &aggregator{instances: map[string]*instance{}, histograms: map[string]prometheus.Histogram{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /", a.push)
	mux.Handle("GET /metrics", promhttp.Handler())
	log.Fatal(http.ListenAndServe(*address, mux))
}

func (a *aggregator) push(w http.ResponseWriter, r *http.Request) {
	var p push
	if err := json.NewDecoder(r.Body).Decode(&p); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	a.add(&p)
	w.Header().Set("Content-Type", "application/json")
	if _, err := w.Write([]byte(`{"status":"ok"}`)); err != nil {
		log.Print(err)
	}
}

func (a *aggregator) add(p *push) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	now := time.Now()
	i, found := a.instances[p.ID]
	if !found {
		i = &instance{name: p.Name, createdAt: p.CreatedAt}
		if i.createdAt.IsZero() {
			i.createdAt = now
		}
		a.instances[p.ID] = i
	}
	for _, known := range i.stages {
		if known.name == p.Stage {
			return
		}
	}
	i.stages = append(i.stages, stage{p.Stage, p.LabelValues})
	i.updatedAt = now
	duration := now.Sub(i.createdAt)
	if p.TimeToLive == 0 {
		p.TimeToLive = 30
	}
	time.AfterFunc(time.Duration(p.LifeSpan)*time.Second, func() { a.close(p, now, duration) })
}

func (a *aggregator) close(p *push, planned time.Time, duration time.Duration) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	i := a.instances[p.ID]
	if i == nil || i.closed || i.updatedAt.After(planned) {
		return
	}
	i.closed = true
	a.histogram(p).Observe(duration.Seconds())
	time.AfterFunc(time.Duration(p.TimeToLive)*time.Second, func() {
		a.mutex.Lock()
		defer a.mutex.Unlock()
		delete(a.instances, p.ID)
	})
}

func (a *aggregator) histogram(p *push) prometheus.Histogram {
	known, found := a.histograms[p.Name]
	if found {
		return known
	}
	buckets := p.Buckets
	if buckets == nil {
		buckets = prometheus.DefBuckets
	}
	created := prometheus.NewHistogram(prometheus.HistogramOpts{Name: p.Name, Help: p.Help, Buckets: buckets})
	prometheus.MustRegister(created)
	a.histograms[p.Name] = created
	return created
}
