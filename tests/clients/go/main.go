// A program made with client-go: a shared informer, leader election, conflicts that are retried, a command in a container.
//
// Run by tests/e2e/test_clients.py with KUBECONFIG; it ends with 0 when all is as that library expects.
package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/util/retry"
)

const limit = 60 * time.Second

func main() {
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	must(err)
	client := kubernetes.NewForConfigOrDie(config)
	ctx, cancel := context.WithTimeout(context.Background(), 2*limit)
	defer cancel()
	namespace := fmt.Sprintf("go-%d", time.Now().UnixNano()%1_000_000)
	_, err = client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
	must(err)
	informed(ctx, client, namespace)
	contended(ctx, client, namespace)
	elected(ctx, client, namespace)
	commanded(ctx, client, config, namespace)
	must(client.CoreV1().Namespaces().Delete(ctx, namespace, metav1.DeleteOptions{}))
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// informed sees what happens to ConfigMaps in order, and its cache holds what the API does.
func informed(ctx context.Context, client kubernetes.Interface, namespace string) {
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(namespace))
	informer := factory.Core().V1().ConfigMaps()
	var lock sync.Mutex
	var seen []string
	note := func(word string, object any) {
		if one, ok := object.(*corev1.ConfigMap); ok && one.Name == "a" {
			lock.Lock()
			defer lock.Unlock()
			seen = append(seen, word+one.Data["n"])
		}
	}
	_, err := informer.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(one any) { note("+", one) },
		UpdateFunc: func(_, one any) { note("~", one) },
		DeleteFunc: func(one any) { note("-", one) },
	})
	must(err)
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	maps := client.CoreV1().ConfigMaps(namespace)
	made, err := maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Data: map[string]string{"n": "1"}}, metav1.CreateOptions{})
	must(err)
	made.Data["n"] = "2"
	_, err = maps.Update(ctx, made, metav1.UpdateOptions{})
	must(err)
	must(maps.Delete(ctx, "a", metav1.DeleteOptions{}))
	must(wait.PollUntilContextTimeout(ctx, 10*time.Millisecond, limit, true, func(context.Context) (bool, error) {
		lock.Lock()
		defer lock.Unlock()
		return strings.Join(seen, " ") == "+1 ~2 -2", nil
	}))
}

// contended counts to twenty with four writers who meet: each conflict is a conflict, and no write is lost.
func contended(ctx context.Context, client kubernetes.Interface, namespace string) {
	maps := client.CoreV1().ConfigMaps(namespace)
	_, err := maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "count"}, Data: map[string]string{"n": ""}}, metav1.CreateOptions{})
	must(err)
	var group sync.WaitGroup
	for writer := 0; writer < 4; writer++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for number := 0; number < 5; number++ {
				must(retry.OnError(wait.Backoff{Duration: time.Millisecond, Factor: 1.5, Jitter: 0.5, Steps: 50}, errors.IsConflict, func() error {
					found, err := maps.Get(ctx, "count", metav1.GetOptions{})
					must(err)
					found.Data["n"] += "x"
					_, err = maps.Update(ctx, found, metav1.UpdateOptions{})
					return err
				}))
			}
		}()
	}
	group.Wait()
	found, err := maps.Get(ctx, "count", metav1.GetOptions{})
	must(err)
	if len(found.Data["n"]) != 20 {
		panic(fmt.Sprintf("%d of 20 writes are there", len(found.Data["n"])))
	}
}

// elected leads, lets go, and another one leads.
func elected(ctx context.Context, client kubernetes.Interface, namespace string) {
	for _, name := range []string{"first", "second"} {
		lock, err := resourcelock.New(resourcelock.LeasesResourceLock, namespace, "leader", client.CoreV1(), client.CoordinationV1(), resourcelock.ResourceLockConfig{Identity: name})
		must(err)
		own, stop := context.WithTimeout(ctx, limit)
		led := false
		leaderelection.RunOrDie(own, leaderelection.LeaderElectionConfig{
			Lock: lock, LeaseDuration: 10 * time.Second, RenewDeadline: 5 * time.Second, RetryPeriod: 100 * time.Millisecond, ReleaseOnCancel: true,
			Callbacks: leaderelection.LeaderCallbacks{OnStartedLeading: func(context.Context) { led = true; stop() }, OnStoppedLeading: func() {}},
		})
		stop()
		if !led {
			panic(name + " never led")
		}
	}
}

// commanded runs a command in a container and reads what it wrote, as kubectl exec does.
func commanded(ctx context.Context, client kubernetes.Interface, config *rest.Config, namespace string) {
	pods := client.CoreV1().Pods(namespace)
	_, err := pods.Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: "podwire.dev/machine", Command: []string{"sleep", "600"}}}},
	}, metav1.CreateOptions{})
	must(err)
	must(wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, limit, true, func(ctx context.Context) (bool, error) {
		found, err := pods.Get(ctx, "web", metav1.GetOptions{})
		return err == nil && found.Status.Phase == corev1.PodRunning, err
	}))
	options := &corev1.PodExecOptions{Container: "web", Command: []string{"sh", "-c", "cat; echo err >&2; exit 3"}, Stdin: true, Stdout: true, Stderr: true}
	url := client.CoreV1().RESTClient().Post().Resource("pods").Name("web").Namespace(namespace).SubResource("exec").VersionedParams(options, scheme.ParameterCodec).URL()
	for _, make := range []func() (remotecommand.Executor, error){
		func() (remotecommand.Executor, error) { return remotecommand.NewWebSocketExecutor(config, "GET", url.String()) },
		func() (remotecommand.Executor, error) { return remotecommand.NewSPDYExecutor(config, "POST", url) },
	} {
		executor, err := make()
		must(err)
		var out, errors bytes.Buffer
		err = executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: strings.NewReader("in"), Stdout: &out, Stderr: &errors})
		if out.String() != "in" || errors.String() != "err\n" || err == nil || !strings.Contains(err.Error(), "exit code 3") {
			panic(fmt.Sprintf("out %q, err %q, end %v", out.String(), errors.String(), err))
		}
	}
}
